/** `TokenSource` with a simulated service and a clock that the test moves. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { DialtoneError, TokenSource } from "../dist/token-source.js";
import { ManualClock, settled } from "./clock.mjs";
import { ORIGIN, login, offline, ok, problem, service } from "./simulation.mjs";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const deleted = () => new Response(null, { status: 204 });
const token = (name, more = {}) => ok(login({ token: name, refresh: 3600, expires: 4800, ...more }));

function sourceAt(dialtone, more = {}) {
  const clock = new ManualClock();
  const options = { url: ORIGIN, accessToken: () => "user-token", deviceId: "phone-1", platform: "ios", fetch: dialtone.fetch };
  const source = new TokenSource({ ...options, ...more }, clock);
  const seen = { due: [], errors: [], logins: [] };
  source.on("due", () => seen.due.push(clock.elapsed()));
  source.on("error", ({ code }) => seen.errors.push(code));
  source.on("login", (info) => seen.logins.push(info));
  return { source, clock, seen };
}

test("a login is requested for the device", async () => {
  const dialtone = service(ok());
  const { source } = sourceAt(dialtone, { label: "Work phone" });

  const { login_token, sip_uri } = await source.get();

  assert.deepEqual([login_token, sip_uri], ["token-1", "sip:gencredA@sip.telnyx.com"]);
  assert.deepEqual(dialtone.requests[0].body, { device_id: "phone-1", platform: "ios", label: "Work phone" });
});

test("a login is cached until it is due for a refresh", async () => {
  const dialtone = service(token("token-1"), token("token-2"));
  const { source, clock } = sourceAt(dialtone);

  await source.get();
  await clock.advance(HOUR - 1);
  assert.equal((await source.get()).login_token, "token-1");
  await clock.advance(1);
  assert.equal((await source.get()).login_token, "token-2");

  assert.equal(dialtone.requests.length, 2);
});

test("concurrent callers share one request", async () => {
  const dialtone = service(ok());
  const { source } = sourceAt(dialtone);

  await Promise.all([source.get(), source.fetch(), source.refresh(), source.get()]);

  assert.equal(dialtone.requests.length, 1);
});

test("a login that became due while the machine slept is not returned", async () => {
  const { source, clock } = sourceAt(service(token("token-1"), token("token-2")));
  await source.get();

  clock.setWall(8 * HOUR);

  assert.equal((await source.get()).login_token, "token-2");
});

test("a wall clock that is set back does not prolong a login", async () => {
  const { source, clock } = sourceAt(service(token("token-1"), token("token-2")));
  await source.get();

  clock.setWall(-24 * HOUR);
  await clock.advance(HOUR);

  assert.equal((await source.get()).login_token, "token-2");
});

test("the source reports once that a login is due", async () => {
  const { source, clock, seen } = sourceAt(service(token("token-1")));
  await source.get();

  await clock.advance(3 * HOUR);

  assert.deepEqual(seen.due, [HOUR]);
});

test("the source waits until Telnyx accepts a new credential", async () => {
  const { source, clock, seen } = sourceAt(service(token("token-1", { usable: 5 })));
  let received;
  void source.get().then((value) => (received = value));

  await clock.advance(4_999);
  assert.equal(seen.logins.length, 1);
  assert.equal(received, undefined);
  await clock.advance(1);
  await settled();

  assert.equal(received.login_token, "token-1");
});

test("a caller during the wait for a new credential waits too", async () => {
  const { source, clock } = sourceAt(service(token("token-1", { usable: 5 })));
  const first = source.get();
  await clock.advance(1_000);

  let isEarly = true;
  const second = source.get().then(() => assert.ok(!isEarly));
  await clock.advance(3_999);
  isEarly = false;
  await clock.advance(1);

  await Promise.all([first, second]);
});

test("a refresh gets a new token of the credential", async () => {
  const dialtone = service(token("token-1"), token("token-2"));
  const { source } = sourceAt(dialtone);
  await source.get();

  assert.equal((await source.refresh()).login_token, "token-2");

  assert.match(dialtone.requests[1].url, /\/0b8f9d4e5a6c47d1a2b3c4d5e6f70812\/token$/);
});

for (const [status, code] of [
  [410, "credential_ended"],
  [404, "credential_not_found"],
]) {
  test(`a refresh after ${code} gets a new credential`, async () => {
    const dialtone = service(token("token-1"), problem(status, code), token("token-2"));
    const { source } = sourceAt(dialtone);
    await source.get();

    assert.equal((await source.refresh()).login_token, "token-2");

    const paths = dialtone.requests.map(({ url }) => url.split("/").at(-1));
    assert.deepEqual(paths, ["telephony-credentials", "token", "telephony-credentials"]);
  });
}

// -- failures ---------------------------------------------------------------------------------------------------------

test("a retryable error is reported and retried after Retry-After", async () => {
  const { source, clock, seen } = sourceAt(service(problem(503, "telnyx_unavailable", { "Retry-After": "20" }), ok()));
  const started = clock.elapsed();
  let received;
  void source.get().then(() => (received = clock.elapsed()));

  await clock.advance(19_999);
  assert.equal(received, undefined);
  await clock.advance(1);
  await settled();

  assert.deepEqual(seen.errors, ["telnyx_unavailable"]);
  assert.equal(received - started, 20_000);
});

test("without a network the pauses grow to half a minute", async () => {
  const dialtone = service(offline());
  const { source, clock } = sourceAt(dialtone);
  source.get().catch(() => undefined);

  await clock.advance(10 * MINUTE);
  const before = dialtone.requests.length;
  await clock.advance(10 * MINUTE);

  const perMinute = (dialtone.requests.length - before) / 10;
  assert.ok(perMinute >= 1.6 && perMinute <= 2.7, String(perMinute));
  source.close();
});

test("a request is retried immediately when the browser is online again", async () => {
  const listeners = new Map();
  globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
  globalThis.removeEventListener = (name) => listeners.delete(name);
  const dialtone = service(offline(), ok());
  const { source } = sourceAt(dialtone);
  const getting = source.get();
  await settled();
  assert.equal(dialtone.requests.length, 1);

  listeners.get("online")();

  assert.equal((await getting).login_token, "token-1");
  source.close();
  delete globalThis.addEventListener;
  delete globalThis.removeEventListener;
  assert.equal(listeners.size, 0);
});

test("an error that a retry cannot fix rejects, and nothing is retried", async () => {
  const dialtone = service(problem(403, "device_limit_reached"));
  const { source, clock, seen } = sourceAt(dialtone);

  await assert.rejects(source.get(), { name: "DialtoneError", code: "device_limit_reached" });
  await clock.advance(HOUR);

  assert.equal(dialtone.requests.length, 1);
  assert.deepEqual(seen.due, []);
});

test("an access token function that throws rejects with its cause", async () => {
  const cause = Object.assign(new Error("Login required"), { error: "login_required" });
  const { source } = sourceAt(service(ok()), { accessToken: () => Promise.reject(cause) });

  await assert.rejects(source.get(), { code: "not_signed_in", cause });
});

test("a denied refresh is due again after half a minute, and then after longer pauses, at most five minutes", async () => {
  const { source, clock, seen } = sourceAt(service(token("token-1"), problem(403, "access_denied")));
  await source.get();
  source.on("due", () => source.get().catch(() => undefined));

  await clock.advance(2 * HOUR);

  const pauses = seen.due.slice(1).map((at, index) => (at - seen.due[index]) / 1000);
  const expected = [30, 60, 120, 240, 300, 300];
  for (const [index, seconds] of expected.entries()) {
    assert.ok(pauses[index] >= 0.75 * seconds && pauses[index] <= 1.25 * seconds, `${pauses}`);
  }
});

test("a login that was refreshed after a denied refresh is due at its own time", async () => {
  const { source, clock, seen } = sourceAt(service(token("token-1"), problem(403, "access_denied"), token("token-2")));
  await source.get();
  await clock.advance(HOUR);
  await assert.rejects(source.get(), { code: "access_denied" });

  await source.get();
  await clock.advance(HOUR);

  assert.equal(seen.due.length, 2);
});

// -- device ids -------------------------------------------------------------------------------------------------------

test("the device id may come from storage", async () => {
  const dialtone = service(ok());
  const { source } = sourceAt(dialtone, { deviceId: async () => "stored-1" });

  await source.get();

  assert.equal(dialtone.requests[0].body.device_id, "stored-1");
});

test("storage that fails rejects with its cause, and no request is sent", async () => {
  const cause = new Error("the keychain is locked");
  const dialtone = service(ok());
  const { source } = sourceAt(dialtone, { deviceId: () => Promise.reject(cause) });

  await assert.rejects(source.get(), { code: "invalid_options", cause });

  assert.equal(dialtone.requests.length, 0);
});

test("without a device id the constructor throws", () => {
  assert.throws(() => sourceAt(service(ok()), { deviceId: undefined }), { code: "invalid_options" });
});

// -- the end ----------------------------------------------------------------------------------------------------------

test("close() ends a request in flight", async () => {
  let signal;
  const fetch = (_, request) => {
    ({ signal } = request);
    return new Promise((__, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const { source } = sourceAt({ fetch });
  const getting = assert.rejects(source.get(), { code: "closed", retryable: false });
  await settled();

  source.close();

  await getting;
  assert.ok(signal.aborted);
});

test("close() ends a wait for a retry, for the access token and for the device id", async () => {
  const never = () => new Promise(() => undefined);
  for (const more of [{ fetch: service(offline()).fetch }, { accessToken: never }, { deviceId: never }]) {
    const { source } = sourceAt(service(ok()), more);
    const getting = assert.rejects(source.get(), { code: "closed" });
    await settled();

    source.close();

    await getting;
  }
});

test("close() ends the timer and forgets the login, and get() starts again", async () => {
  const dialtone = service(token("token-1"), token("token-2"));
  const { source, clock, seen } = sourceAt(dialtone);
  await source.get();

  source.close();
  await clock.advance(2 * HOUR);

  assert.deepEqual(seen.due, []);
  assert.equal((await source.get()).login_token, "token-2"); // another user may be signed in
});

test("revoke() deletes the credential", async () => {
  const dialtone = service(ok(), deleted, ok());
  const { source } = sourceAt(dialtone);
  await source.get();

  await source.revoke();

  assert.equal(source.login, undefined);
  assert.deepEqual(dialtone.requests.map(({ method }) => method), ["POST", "DELETE"]);
});

test("revoke() deletes the credential of a request in flight", async () => {
  let answer;
  const held = new Promise((resolve) => (answer = resolve));
  const dialtone = service(() => held, deleted);
  const { source } = sourceAt(dialtone);
  const getting = assert.rejects(source.get(), { code: "closed" });
  await settled();

  const revoking = source.revoke();
  answer(Response.json(login()));
  await Promise.all([getting, revoking]);

  assert.deepEqual(dialtone.requests.map(({ method }) => method), ["POST", "DELETE"]);
});

test("a login that is requested during revoke() is issued after the deletion", async () => {
  const dialtone = service(ok(), deleted, token("token-2"));
  const { source } = sourceAt(dialtone);
  await source.get();

  const revoking = source.revoke();
  const { login_token } = await source.get();
  await revoking;

  assert.equal(login_token, "token-2");
  assert.deepEqual(dialtone.requests.map(({ method }) => method), ["POST", "DELETE", "POST"]);
});

test("revoke() can be repeated after it failed", async () => {
  const dialtone = service(ok(), problem(403, "access_denied"), deleted);
  const { source } = sourceAt(dialtone);
  await source.get();

  await assert.rejects(source.revoke(), { code: "access_denied" });
  await source.revoke();

  assert.deepEqual(dialtone.requests.map(({ method }) => method), ["POST", "DELETE", "DELETE"]);
});

test("revoke() without a login sends no request", async () => {
  const dialtone = service(ok());

  await sourceAt(dialtone).source.revoke();

  assert.equal(dialtone.requests.length, 0);
});

test("events contain no secret", async () => {
  const { source, clock, seen } = sourceAt(service(ok(login({ password: "hunter2", login: "sip-user" }))));
  source.on("due", (info) => seen.logins.push(info));
  await source.get();
  await clock.advance(HOUR);

  assert.equal(seen.logins.length, 2);
  assert.doesNotMatch(JSON.stringify([seen.logins, source.login]), /token-1|hunter2|sip-user/);
});

test("a Node process ends although a refresh is due later", async () => {
  const lines = `
    import { TokenSource } from ${JSON.stringify(new URL("../dist/token-source.js", import.meta.url).href)};
    import { login } from ${JSON.stringify(new URL("simulation.mjs", import.meta.url).href)};
    const source = new TokenSource({
      url: "https://phones.example.com", accessToken: () => "a", deviceId: "node-1", fetch: async () => Response.json(login()),
    });
    console.log((await source.get()).login_token);
  `;
  const node = promisify(execFile)(process.execPath, ["--input-type=module", "-e", lines], { timeout: 60_000 });

  assert.equal((await node).stdout, "token-1\n");
});

test("the error class is the same in both entry points", async () => {
  assert.equal(DialtoneError, (await import(fileURLToPath(new URL("../dist/index.js", import.meta.url)))).DialtoneError);
});
