/** The packed package in an application: bundlers build it, test runners and Node load it. Prints the sizes. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";

import webpack from "webpack";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const CLIENT = join(HERE, "..");
const run = promisify(execFile);

/** The entry points, with what each of them exports. */
const ENTRIES = {
  "dialtone-client": "Phone",
  "dialtone-client/react": "PhoneProvider",
  "dialtone-client/token-source": "TokenSource",
};
const IMPORTS = Object.entries(ENTRIES)
  .map(([entry, name]) => `import { ${name} } from "${entry}";`)
  .join("\n");
const REQUIRES = Object.entries(ENTRIES)
  .map(([entry, name]) => `const { ${name} } = require("${entry}");`)
  .join("\n");
const NAMES = Object.values(ENTRIES).join(", ");
const CHECK = `for (const loaded of [${NAMES}]) if (typeof loaded !== "function") throw new Error("not loaded");`;

let project;

/** An application below this folder, so that the tools are found, in which the packed package is installed. */
before(async () => {
  project = await mkdtemp(join(HERE, ".project-"));
  await run("npm", ["pack", "--ignore-scripts", "--pack-destination", project], { cwd: CLIENT });
  const archive = (await readdir(project)).find((name) => name.endsWith(".tgz"));
  await run("tar", ["-xzf", archive], { cwd: project });
  await mkdir(join(project, "node_modules"));
  await cp(join(project, "package"), join(project, "node_modules", "dialtone-client"), { recursive: true });
  await writeFile(join(project, "package.json"), '{ "private": true }');
  await write("app.mjs", `${IMPORTS}\n${CHECK}\nconsole.log("loaded");\n`);
  await write("app.cjs", `${REQUIRES}\n${CHECK}\nconsole.log("loaded");\n`);
});

after(() => rm(project, { recursive: true }));

const write = (name, text) => writeFile(join(project, name), text);
const tool = (name, ...words) => run(process.execPath, [bin(name), ...words], { cwd: project });
const bin = (name) => join(HERE, "node_modules", ...name.split("/"));

/** The bundle runs without a window, and its size is printed. */
async function check(context, bundle) {
  const { stdout } = await run(process.execPath, [join(project, bundle)]);
  const text = await readFile(join(project, bundle));
  context.diagnostic(`${bundle}: ${text.length} bytes, ${gzipSync(text).length} with gzip, with React`);
  assert.equal(stdout, "loaded\n");
}

for (const app of ["app.mjs", "app.cjs"]) {
  test(`Node loads every entry point: ${app}`, async () => {
    assert.equal((await run(process.execPath, [app], { cwd: project })).stdout, "loaded\n");
  });

  test(`Vite bundles every entry point: ${app}`, async (context) => {
    const output = { entryFileNames: `vite-${app}`, format: app === "app.mjs" ? "es" : "cjs" };
    const build = { outDir: ".", emptyOutDir: false, rollupOptions: { input: app, output } };
    await write("vite.config.mjs", `export default ${JSON.stringify({ logLevel: "error", build })};`);

    await tool("vite/bin/vite.js", "build");

    await check(context, `vite-${app}`);
  });

  test(`webpack bundles every entry point: ${app}`, async (context) => {
    const output = { path: project, filename: `webpack-${app}.cjs` };
    const compiler = webpack({ mode: "production", target: "node", context: project, entry: `./${app}`, output });

    const stats = await promisify(compiler.run.bind(compiler))();
    assert.deepEqual(stats.toJson().errors, []);

    await check(context, `webpack-${app}.cjs`);
  });

  test(`esbuild bundles every entry point: ${app}`, async (context) => {
    const options = ["--bundle", "--minify", "--platform=node", '--define:process.env.NODE_ENV="production"'];

    await run(bin("esbuild/bin/esbuild"), [app, ...options, `--outfile=esbuild-${app}.cjs`], { cwd: project });

    await check(context, `esbuild-${app}.cjs`);
  });
}

test("Jest loads every entry point with its defaults", async () => {
  await write("use.test.js", `${REQUIRES}\ntest("loads", () => {${CHECK}});\n`);

  await tool("jest/bin/jest.js", "--rootDir", project, "use.test.js");
});

test("Vitest loads every entry point", async () => {
  await write("use.spec.mjs", `import { test } from "vitest";\n${IMPORTS}\ntest("loads", () => {${CHECK}});\n`);

  await tool("vitest/vitest.mjs", "run", "--root", project, "use.spec.mjs");
});

test("React 18 connects and disconnects a phone in StrictMode", async () => {
  for (const name of ["react", "react-dom"]) {
    await cp(join(HERE, "node_modules", `${name}-18`), join(project, "node_modules", name), { recursive: true });
  }
  const lines = `
    import { createRequire } from "node:module";
    const { JSDOM } = createRequire("${join(CLIENT, "package.json")}")("jsdom");
    const { window } = new JSDOM("<p id=root></p>");
    Object.assign(globalThis, { window, document: window.document });
    Object.defineProperty(globalThis, "navigator", { configurable: true, value: window.navigator });
    const { StrictMode, createElement, version } = await import("react");
    const { createRoot } = await import("react-dom/client");
    const { PhoneProvider, usePhone } = await import("dialtone-client/react");
    const { FakeSdk, ok, service, eventually } = await import("${join(CLIENT, "test", "simulation.mjs")}");
    const Status = () => usePhone().state;
    const createClient = (options) => new FakeSdk(options);
    const props = { url: "", user: "alice", accessToken: () => "a", createClient, fetch: service(ok()).fetch };
    const root = createRoot(document.querySelector("#root"));
    root.render(createElement(StrictMode, null, createElement(PhoneProvider, props, createElement(Status))));
    await eventually(() => document.body.textContent === "ready");
    root.unmount();
    await eventually(() => FakeSdk.made.every(({ connected }) => !connected));
    console.log(version, FakeSdk.made.length);
  `;
  await write("react-18.mjs", lines);

  const { stdout } = await run(process.execPath, ["react-18.mjs"], { cwd: project });
  await Promise.all(["react", "react-dom"].map((name) => rm(join(project, "node_modules", name), { recursive: true })));

  assert.match(stdout, /^18\.\d+\.\d+ 1\n$/);
});

test("Next.js renders a page with the provider on the server, and builds it for the browser", async () => {
  await mkdir(join(project, "app"));
  await write("app/layout.jsx", "export default ({ children }) => <html><body>{children}</body></html>;\n");
  const page = `"use client";
import { PhoneProvider, usePhone } from "dialtone-client/react";
const Status = () => <p>state: {usePhone().state}</p>;
const createClient = () => { throw new Error("created on the server"); };
export default () => (
  <PhoneProvider url="/dialtone" user="alice" accessToken={() => "a"} createClient={createClient}><Status /></PhoneProvider>
);
`;
  await write("app/page.jsx", page);

  await tool("next/dist/bin/next", "build");

  assert.match(await readFile(join(project, ".next", "server", "app", "index.html"), "utf8"), /state: (<!-- -->)?idle/);
});
