/** The examples of the documentation: they compile with every supported TypeScript, and the packed package loads everywhere. */

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
  for (const scope of ["@telnyx", "@types"]) await mkdir(join(project, "node_modules", scope), { recursive: true });
  await run("npm", ["pack", "--ignore-scripts", "--pack-destination", project], { cwd: CLIENT });
  const archive = (await readdir(project)).find((name) => name.endsWith(".tgz"));
  await run("tar", ["-xzf", archive], { cwd: project });
  await cp(join(project, "package"), join(project, "node_modules", "dialtone-client"), { recursive: true });
  for (const name of ["@telnyx/webrtc", "@telnyx/react-client", "@types/react", "react"]) {
    await symlink(join(CLIENT, "node_modules", name), join(project, "node_modules", name));
  }
  for (const [name, types] of Object.entries(SIGN_IN_LIBRARIES)) {
    await mkdir(join(project, "node_modules", name));
    await writeFile(join(project, "node_modules", name, "package.json"), '{ "types": "index.d.ts" }');
    await writeFile(join(project, "node_modules", name, "index.d.ts"), types);
  }
  await writeFile(join(project, "package.json"), '{ "private": true }');
  await mkdir(join(project, "esm"));
  await writeFile(join(project, "esm", "package.json"), '{ "type": "module" }');
  await writeFile(join(project, "esm", "example.cts"), COMMON);
  for (const [file, code] of await examples()) await writeFile(join(project, "esm", file), code);
});

after(() => rm(project, { recursive: true }));

/** The parts of the sign-in libraries that the examples use, with the types of oidc-client-ts 3.5 and react-oidc-context 3.3. */
const SIGN_IN_LIBRARIES = {
  "oidc-client-ts": `
    export declare class User { access_token: string; get expired(): boolean | undefined; profile: { sub: string } }
    interface UserManagerSettings {
      authority: string; client_id: string; redirect_uri: string; post_logout_redirect_uri?: string; scope?: string;
    }
    export declare class UserManager {
      constructor(settings: UserManagerSettings);
      getUser(): Promise<User | null>;
      signinSilent(): Promise<User | null>;
    }`,
  "react-oidc-context": `
    import { type ReactElement, type ReactNode } from "react";
    import { type User, type UserManager } from "oidc-client-ts";
    interface Props { children?: ReactNode; userManager: UserManager; onSigninCallback?: (user: User | undefined) => Promise<void> | void }
    export declare const AuthProvider: (props: Props) => ReactElement;
    interface Auth { user?: User | null; isLoading: boolean; error?: Error; signinRedirect(): Promise<void>; signoutRedirect(): Promise<void> }
    export declare const useAuth: () => Auth;`,
};

/** A CommonJS module. */
const COMMON = `
import { Phone } from "dialtone-client";
import { PhoneProvider } from "dialtone-client/react";
import { TokenSource } from "dialtone-client/token-source";
export const made: [typeof Phone, typeof PhoneProvider, typeof TokenSource] = [Phone, PhoneProvider, TokenSource];
`;

/** Names that the examples use and do not declare. */
const GIVEN = `
import { type ReactNode, useEffect, useState } from "react";
declare const auth: { getAccessToken(): Promise<string> };
declare const useAuth: () => { user?: { id: string }; getAccessToken: () => Promise<string> };
declare const installationId: () => Promise<string>;
declare const show: (text: string) => void, use: (token: string) => void, report: (error: unknown) => void, signOut: () => void;
export const given = () => [show, use, report, signOut, useEffect, useState, auth, useAuth, installationId] as const;
export type Given = ReactNode;
`;

/** Pairs of a file name and the code of a block that starts with an import. */
async function examples() {
  const found = [];
  for (const page of ["../../README.md", "README.md", "../../docs/browser.md", "../../docs/sign-in.md"]) {
    const text = await readFile(join(CLIENT, page), "utf8");
    for (const [, language, code] of text.matchAll(/```(js|tsx?)\n(import .*?)```/gs)) {
      const given = code.includes("react-oidc-context") ? "" : GIVEN;
      found.push([`example-${found.length}.${language === "tsx" ? "tsx" : "ts"}`, `${code}${given}`]);
    }
  }
  assert.equal(found.length, 7);
  return found;
}

async function compile(compiler, files, options) {
  const tsc = join(CLIENT, "node_modules", compiler, "bin", "tsc");
  const language = ["--jsx", "react-jsx", "--target", "ES2022", "--lib", "ES2022,DOM,DOM.Iterable"];
  const fixed = ["--noEmit", "--strict", "--skipLibCheck", ...language];
  try {
    await run(process.execPath, [tsc, ...fixed, ...options, ...files], { cwd: project });
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

for (const [resolution, module, compilers] of RESOLUTIONS) {
  for (const compiler of compilers) {
    test(`the examples compile with ${compiler} and ${resolution}`, async () => {
      const names = (await readdir(join(project, "esm"))).filter((name) => name.startsWith("example"));
      const files = names.filter((name) => module !== "ES2022" || !name.endsWith(".cts")).map((name) => join("esm", name));

      await compile(compiler, files, ["--module", module, "--moduleResolution", resolution]);
    });
  }
}

/** The entry points, with what each of them exports. */
const ENTRIES = [
  ["Phone", "dialtone-client"],
  ["PhoneProvider", "dialtone-client/react"],
  ["TokenSource", "dialtone-client/token-source"],
];
const IMPORTS = ENTRIES.map(([name, entry]) => `import { ${name} } from "${entry}";`).join("\n");
const REQUIRES = ENTRIES.map(([name, entry]) => `const { ${name} } = require("${entry}");`).join("\n");
const USE = `for (const made of [${ENTRIES.map(([name]) => name)}]) if (typeof made !== "function") throw new Error("not loaded");
if ("window" in globalThis) throw new Error("a window");`;

test("Node imports the package, without a window", async () => {
  await writeFile(join(project, "use.mjs"), `${IMPORTS}\n${USE}`);

  await run(process.execPath, ["use.mjs"], { cwd: project });
});

test("Node requires the package", async () => {
  await writeFile(join(project, "use.cjs"), `${REQUIRES}\n${USE}`);

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
  const names = ENTRIES.map(([name]) => name);
  const lines = `${REQUIRES}\ntest("loads", () => [${names}].forEach((made) => expect(typeof made).toBe("function")));\n`;
  await writeFile(join(project, "use.test.js"), lines);
  const jest = join(CLIENT, "node_modules", "jest", "bin", "jest.js");

  await run(process.execPath, [jest, "--rootDir", project, "use.test.js"], { cwd: project });
});
