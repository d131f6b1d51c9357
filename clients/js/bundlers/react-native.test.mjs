/**
 * The React Native code of docs/mobile/react-native.md: it compiles with the types of Telnyx's SDK, and the SDK, which runs here without a
 * phone, writes no login token to AsyncStorage.
 */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const CLIENT = join(HERE, "..");
const run = promisify(execFile);

/** These packages are not in package.json, because npm would install all of Expo and React Native with them. */
const SDK = {
  "@telnyx/react-voice-commons-sdk": ["1.1.1", "sha512-u55JGn4u2+zcJiSuukgi6//WRoYtfKptLrfctJtvy5Qhis5R8YbCydNAQqfYLhaeWTeoul/dnHvMylth4pv/Dg=="],
  "@react-native-async-storage/async-storage": ["2.2.0", "sha512-gvRvjR5JAaUZF8tv2Kcq/Gbt3JHwbKFYfmb445rhOj6NUMx3qPLixmDx5pZAyb9at1bYvJ4/eTUipU5aki45xw=="],
};

/** The parts of React Native and of the SDK's lower layer that need a phone. */
const STUBS = {
  "react-native": `
    exports.Platform = { OS: "ios" };
    exports.NativeModules = {};
    exports.NativeEventEmitter = class { addListener() {} };
    exports.DeviceEventEmitter = { addListener() {} };
    exports.AppState = { addEventListener() {} };
  `,
  "@telnyx/react-native-voice-sdk": `
    exports.TelnyxRTC = class extends require("node:events") {
      constructor(options) { super(); globalThis.clients.push(options); }
      async connect() {}
      async disconnect() {}
      processVoIPNotification(payload) { globalThis.pushes.push(payload); }
    };
  `,
  "react-native-url-polyfill/auto": "",
  "@react-native-async-storage/async-storage/lib/commonjs": `
    exports.__esModule = true;
    const stored = new Map();
    exports.default = {
      getItem: async (key) => stored.get(key) ?? null,
      setItem: async (key, value) => void stored.set(key, value),
      removeItem: async (key) => void stored.delete(key),
    };
  `,
};

const TYPES = { "react-native": 'export const Platform: { OS: "ios" | "android" };\n' };

const GIVEN = `
declare const auth: { getAccessToken(): Promise<string> };
declare const installationId: () => Promise<string>;
declare const report: (error: unknown) => void;
declare const askToSignIn: () => void;
declare const show: (message: string) => void;
`;

let project;

before(async () => {
  project = await mkdtemp(join(HERE, ".project-"));
  const modules = join(project, "node_modules");
  await writeFile(join(project, "package.json"), '{ "private": true }');
  for (const [name, [version, integrity]] of Object.entries(SDK)) {
    const { stdout } = await run("npm", ["pack", `${name}@${version}`, "--json", "--pack-destination", project], { cwd: project });
    const [packed] = Object.values(JSON.parse(stdout));
    assert.equal(packed.integrity, integrity);
    await run("tar", ["-xzf", packed.filename], { cwd: project });
    await cp(join(project, "package"), join(modules, name), { recursive: true });
    await rm(join(project, "package"), { recursive: true });
  }
  for (const [name, code] of Object.entries(STUBS)) {
    await mkdir(join(modules, name), { recursive: true });
    await writeFile(join(modules, name, "index.js"), code);
    if (TYPES[name]) await writeFile(join(modules, name, "index.d.ts"), TYPES[name]);
  }
  await symlink(CLIENT, join(modules, "dialtone-client"));
  const [, code] = (await readFile(join(CLIENT, "..", "..", "docs", "mobile", "react-native.md"), "utf8")).match(/```ts\n(.*?)```/s);
  await writeFile(join(project, "app.ts"), `${code}${GIVEN}`);
  await writeFile(join(project, "unguarded.ts"), `${code.replace(/^AsyncStorage\.setItem = .*?^};$/ms, "")}${GIVEN}`);
});

after(() => rm(project, { recursive: true }));

test("the code compiles with the SDK's types", async () => {
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "ES2022", "--lib", "ES2022,DOM", "--module", "ES2022"];
  const tsc = join(CLIENT, "node_modules", "typescript", "bin", "tsc");

  await run(process.execPath, [tsc, ...options, "--moduleResolution", "bundler", "app.ts"], { cwd: project }).catch(({ stdout }) =>
    assert.fail(stdout),
  );
});

/** Run the code as an app that a push notification woke. Returns what it stored, and the options of the SDK's clients. */
async function connected(file) {
  const bundle = ["--bundle", "--platform=node", "--packages=external", "--format=cjs", `--outfile=${file}.cjs`];
  await run(join(HERE, "node_modules", "esbuild", "bin", "esbuild"), [`${file}.ts`, ...bundle], { cwd: project });
  const lines = `
    import { createRequire } from "node:module";
    import { login, ok, service } from ${JSON.stringify(join(CLIENT, "test", "simulation.mjs"))};
    const require = createRequire(import.meta.url);
    console.log = () => undefined;
    Object.assign(globalThis, {
      clients: [], pushes: [],
      auth: { getAccessToken: async () => "user-token" },
      installationId: async () => "phone-1",
      report: (error) => { throw error; },
      fetch: service(ok(login({ token: "login-token" }))).fetch,
    });
    const storage = require("@react-native-async-storage/async-storage").default;
    const { connect } = require("./${file}.cjs");
    await connect("push-token", { metadata: { call_id: "1", voice_sdk_id: "2" } });
    const [stored, push] = await Promise.all(["@credential_token", "@push_token"].map((key) => storage.getItem(key)));
    console.info(JSON.stringify({ clients, pushes, stored, push }));
    process.exit();
  `;
  await writeFile(join(project, "main.mjs"), lines);
  const { stdout } = await run(process.execPath, ["main.mjs"], { cwd: project });
  return JSON.parse(stdout.trim().split("\n").at(-1));
}

test("the SDK connects with the login of the token source, and stores no login token", async () => {
  const { clients, pushes, stored, push } = await connected("app");

  assert.deepEqual(clients.map(({ login_token }) => login_token), ["login-token"]);
  assert.equal(pushes.length, 1);
  assert.equal(stored, null);
  assert.equal(push, "push-token");
});

test("without the guard, the SDK stores the login token", async () => {
  assert.equal((await connected("unguarded")).stored, "login-token");
});
