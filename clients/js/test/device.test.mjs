/** One device per tab: reloads, duplicated tabs, and components that mount and unmount. */

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { tabDeviceId } from "../dist/device.js";
import { Phone } from "../dist/index.js";
import { checkRejections, later } from "./rejections.mjs";
import { FakeSdk, ORIGIN, eventually, loadPage, login, ok, service, webLocks } from "./simulation.mjs";

const devicesOf = (dialtone) => new Set(dialtone.requests.map(({ body }) => body.device_id));

let locks;

beforeEach(() => {
  locks = webLocks();
  loadPage({ locks });
});

checkRejections();

function phoneAt(dialtone, more = {}) {
  return new Phone({
    url: ORIGIN,
    accessToken: () => "user-token",
    fetch: dialtone.fetch,
    createClient: (options) => new FakeSdk(options),
    ...more,
  });
}

test("a tab keeps its id after a reload", async () => {
  const kept = loadPage({ locks });
  const id = await tabDeviceId();

  loadPage({ locks: webLocks(), kept }); // unloading the page releases its locks

  assert.match(id, /^tab-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(await tabDeviceId(), id);
});

test("a duplicated tab gets a new id", async () => {
  const kept = loadPage({ locks });
  const id = await tabDeviceId();

  loadPage({ locks, kept: { ...kept } });

  assert.notEqual(await tabDeviceId(), id);
});

test("a reload keeps the id if the previous page releases its lock a moment later", async () => {
  const dialtone = service(ok());
  const kept = loadPage({ locks });
  const phone = phoneAt(dialtone);
  await phone.connect();

  loadPage({ locks, kept });
  setTimeout(() => phone.close(), 50);
  const reloaded = phoneAt(dialtone);
  await reloaded.connect();
  await reloaded.close();

  assert.equal(devicesOf(dialtone).size, 1);
});

test("a reload keeps the id although the process is stopped for longer than the page waits for its lock", async () => {
  const dialtone = service(ok());
  const kept = loadPage({ locks });
  const phone = phoneAt(dialtone);
  await phone.connect();

  loadPage({ locks, kept });
  const reloaded = phoneAt(dialtone);
  const connecting = reloaded.connect();
  await later(1);
  setTimeout(() => phone.close(), 20);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  await connecting;
  await reloaded.close();

  assert.equal(devicesOf(dialtone).size, 1);
});

test("an id exists without locks and storage", async () => {
  loadPage();
  Object.defineProperty(globalThis, "sessionStorage", {
    configurable: true,
    get() {
      throw new Error("forbidden");
    },
  });
  const id = await tabDeviceId();
  const again = await tabDeviceId();
  delete globalThis.sessionStorage;

  assert.match(id, /^tab-/);
  assert.equal(again, id);
});

test("an id exists without crypto.randomUUID, as on insecure origins", async () => {
  loadPage();
  const randomUUID = mock.method(crypto, "randomUUID", undefined);
  const id = await tabDeviceId();
  randomUUID.mock.restore();

  assert.match(id, /^tab-[0-9a-f-]{36}$/);
});

test("an id exists if the browser rejects every lock, as in a sandboxed frame", async () => {
  loadPage({ locks: { request: () => Promise.reject(new DOMException("denied", "SecurityError")) } });

  assert.match(await tabDeviceId(), /^tab-/);
});

test("twelve rounds of connect and close in one page are one device", async () => {
  const dialtone = service(ok());

  for (let round = 0; round < 12; round += 1) {
    const phone = phoneAt(dialtone);
    await phone.connect();
    void phone.close();
  }

  assert.equal(dialtone.requests.length, 12);
  assert.equal(devicesOf(dialtone).size, 1);
});

test("twelve rounds in one tick are one device", async () => {
  const dialtone = service(ok());
  const rounds = Array.from({ length: 12 }, () => {
    const phone = phoneAt(dialtone);
    const connecting = phone.connect();
    void phone.close();
    return connecting;
  });
  const last = phoneAt(dialtone);

  await Promise.all([...rounds, last.connect()]);
  await last.close();

  assert.equal(devicesOf(dialtone).size, 1);
});

test("a component that is mounted twice in one tick, as by StrictMode, opens one connection", async () => {
  const dialtone = service(ok());
  const first = phoneAt(dialtone);
  void first.connect();
  void first.close();
  const second = phoneAt(dialtone);

  await second.connect();
  await later(20);
  await second.close();

  assert.equal(dialtone.requests.length, 1);
  assert.equal(FakeSdk.made.length, 1);
});

test("an application that clears the session storage keeps its device", async () => {
  const dialtone = service(ok());
  const first = phoneAt(dialtone);
  await first.connect();
  void first.close();
  sessionStorage.clear();

  const second = phoneAt(dialtone);
  await second.connect();
  await second.close();

  assert.equal(devicesOf(dialtone).size, 1);
});

test("close() releases the lock", async () => {
  const phone = phoneAt(service(ok()));
  await phone.connect();
  assert.equal(locks.held().length, 1);

  await phone.close();
  await later(10);

  assert.deepEqual(locks.held(), []);
});

test("close() while a request is in flight aborts the request", async () => {
  let signal;
  const fetch = (_, request) => {
    signal = request.signal;
    return new Promise((__, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const phone = phoneAt({ fetch });
  const connecting = phone.connect();
  await eventually(() => signal !== undefined);

  await phone.close();
  await connecting;

  assert.ok(signal.aborted);
  assert.equal(phone.state, "idle");
});

test("close() ends a connect() whose access token never comes", async () => {
  const phone = phoneAt(service(ok()), { accessToken: () => new Promise(() => undefined) });
  const connecting = phone.connect();
  await later(10);

  await phone.close();

  await connecting;
});

test("connect() after close() emits no stale idle", async () => {
  const phone = phoneAt(service(ok(login({ usable: 0.05 }))));
  await phone.connect();
  const states = [];
  phone.on("state", (state) => states.push(state));

  void phone.close();
  await phone.connect();
  await later(20);

  assert.deepEqual(states, ["idle", "fetching", "waiting", "connecting", "ready"]);
  await phone.close();
});

test("connect() in the tick of close(), with the first attempt in flight, connects once", async () => {
  const dialtone = service(ok());
  const phone = phoneAt(dialtone);
  const first = phone.connect();
  void phone.close();

  await Promise.all([first, phone.connect()]);
  await later(20);

  assert.equal(phone.state, "ready");
  assert.equal(FakeSdk.made.filter(({ isGone }) => !isGone).length, 1);
  await phone.close();
});

test("connect() of a connected phone keeps the connection", async () => {
  const dialtone = service(ok());
  const phone = phoneAt(dialtone);
  await phone.connect();

  await phone.connect();

  assert.equal(dialtone.requests.length, 1);
  assert.equal(FakeSdk.made.length, 1);
  await phone.close();
});

test("a second phone in the page is rejected, and the first keeps its connection", async () => {
  const dialtone = service(ok());
  const [first, second] = [phoneAt(dialtone), phoneAt(dialtone)];
  await first.connect();

  await assert.rejects(second.connect(), { name: "DialtoneError", code: "already_open", retryable: false });

  assert.equal(first.state, "ready");
  assert.equal(dialtone.requests.length, 1);
  await first.close();
});

test("two phones with device ids of their own may be open in one page", async () => {
  const dialtone = service(ok());
  const phones = ["desk", "lobby"].map((deviceId) => phoneAt(dialtone, { deviceId }));

  await Promise.all(phones.map((phone) => phone.connect()));
  await Promise.all(phones.map((phone) => phone.close()));

  assert.deepEqual(devicesOf(dialtone), new Set(["desk", "lobby"]));
});

test("a phone that failed to connect does not keep its device", async () => {
  const failed = phoneAt(service(ok()), { accessToken: () => null });
  await assert.rejects(failed.connect(), { code: "not_signed_in" });
  const dialtone = service(ok());

  const next = phoneAt(dialtone);
  await next.connect();
  await next.close();

  assert.equal(dialtone.requests.length, 1);
});

test("a phone that is created during a logout logs in after the deletion", async () => {
  const dialtone = service(ok(), () => new Response(null, { status: 204 }), ok());
  const first = phoneAt(dialtone);
  await first.connect();
  const leaving = first.logout();

  const second = phoneAt(dialtone);
  await second.connect();
  await leaving;
  await second.close();

  assert.deepEqual(dialtone.requests.map(({ method }) => method), ["POST", "DELETE", "POST"]);
  assert.equal(dialtone.requests[2].body.device_id, dialtone.requests[0].body.device_id);
});
