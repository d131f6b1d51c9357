/** The example of the README: it compiles with every supported TypeScript, and the packed package loads everywhere. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const CLIENT = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);

let project;

/** An application in which the packed package is installed. */
before(async () => {
  project = await mkdtemp(join(tmpdir(), "dialtone-client-"));
  await mkdir(join(project, "node_modules", "@telnyx"), { recursive: true });
  await run("npm", ["pack", "--ignore-scripts", "--pack-destination", project], { cwd: CLIENT });
  const archive = (await readdir(project)).find((name) => name.endsWith(".tgz"));
  await run("tar", ["-xzf", archive], { cwd: project });
  await cp(join(project, "package"), join(project, "node_modules", "dialtone-client"), { recursive: true });
  await symlink(join(CLIENT, "node_modules", "@telnyx", "webrtc"), join(project, "node_modules", "@telnyx", "webrtc"));
  await writeFile(join(project, "package.json"), '{ "private": true }');
});

after(() => rm(project, { recursive: true }));

async function exampleOf(readme) {
  const [, code] = (await readFile(join(CLIENT, readme), "utf8")).match(/```js\n(.*?)```/s);
  return `${code}
declare const auth: { getAccessToken(): Promise<string> };
declare const show: (text: string) => void;
export const shown = () => show("");
`;
}

async function compile(compiler, file, options) {
  const tsc = join(CLIENT, "node_modules", compiler, "bin", "tsc");
  const fixed = ["--noEmit", "--strict", "--skipLibCheck", "--target", "ES2022", "--lib", "ES2022,DOM,DOM.Iterable"];
  try {
    await run(process.execPath, [tsc, ...fixed, ...options, file], { cwd: project });
  } catch (error) {
    assert.fail(error.stdout);
  }
}

const ALL = ["typescript-5.4", "typescript", "typescript-newest"];
const RESOLUTIONS = [
  ["bundler", "ES2022", ALL],
  ["node16", "node16", ALL],
  ["nodenext", "nodenext", ALL],
  ["node10", "ES2022", ["typescript-5.4", "typescript"]], // the newest TypeScript has removed it
];

for (const readme of ["../../README.md", "README.md"]) {
  for (const [resolution, module, compilers] of RESOLUTIONS) {
    for (const compiler of compilers) {
      test(`${readme} compiles with ${compiler} and ${resolution}`, async () => {
        const file = `example-${resolution}.${resolution.startsWith("node1") && module !== "node16" ? "ts" : "mts"}`;
        await writeFile(join(project, file), await exampleOf(readme));

        await compile(compiler, file, ["--module", module, "--moduleResolution", resolution]);
      });
    }
  }
}

for (const compiler of ALL) {
  test(`a CommonJS module compiles with ${compiler}`, async () => {
    await writeFile(join(project, "common.cts"), 'import { Phone } from "dialtone-client";\nexport const made: typeof Phone = Phone;\n');

    await compile(compiler, "common.cts", ["--module", "node16", "--moduleResolution", "node16"]);
  });
}

const USE = "if (typeof Phone !== 'function' || 'window' in globalThis) throw new Error('not loaded');";

test("Node imports the package, without a window", async () => {
  await writeFile(join(project, "use.mjs"), `import { Phone } from "dialtone-client";\n${USE}`);

  await run(process.execPath, ["use.mjs"], { cwd: project });
});

test("Node requires the package", async () => {
  await writeFile(join(project, "use.cjs"), `const { Phone } = require("dialtone-client");\n${USE}`);

  await run(process.execPath, ["use.cjs"], { cwd: project });
});

test("both formats share one device in a page", async () => {
  const lines = `
    import { createRequire } from "node:module";
    import { tabDeviceId } from "dialtone-client";
    const common = createRequire(import.meta.url)("dialtone-client");
    if ((await tabDeviceId()) !== (await common.tabDeviceId())) throw new Error("two devices");
  `;
  await writeFile(join(project, "both.mjs"), lines);

  await run(process.execPath, ["both.mjs"], { cwd: project });
});

test("Jest loads the package with its defaults", async () => {
  const lines = 'const { Phone } = require("dialtone-client");\ntest("loads", () => expect(typeof Phone).toBe("function"));\n';
  await writeFile(join(project, "use.test.js"), lines);
  const jest = join(CLIENT, "node_modules", "jest", "bin", "jest.js");

  await run(process.execPath, [jest, "--rootDir", project, "use.test.js"], { cwd: project });
});
