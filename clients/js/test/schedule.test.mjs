/** The alarm after sleep and clock changes, and the device id in duplicated tabs. */

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { tabDeviceId } from "../dist/device.js";
import { Alarm } from "../dist/schedule.js";

const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

test("the alarm rings once after its delay", async () => {
  let rings = 0;
  new Alarm(60, () => (rings += 1));

  await later(30);
  assert.equal(rings, 0);
  await later(100);
  assert.equal(rings, 1);
});

test("a cancelled alarm does not ring", async () => {
  let rings = 0;
  new Alarm(30, () => (rings += 1)).cancel();

  await later(80);
  assert.equal(rings, 0);
});

test("the alarm rings when the machine wakes, although the monotonic clock stopped", () => {
  const listeners = new Map();
  globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
  globalThis.removeEventListener = () => undefined;
  let rings = 0;
  new Alarm(3_600_000, () => (rings += 1));
  const wall = Date.now();
  const clock = mock.method(Date, "now", () => wall + 8 * 3_600_000);

  listeners.get("pageshow")();

  clock.mock.restore();
  delete globalThis.addEventListener;
  delete globalThis.removeEventListener;
  assert.equal(rings, 1);
});

test("a wall clock that is set back does not delay the alarm", async () => {
  let rings = 0;
  new Alarm(60, () => (rings += 1));
  const wall = Date.now();
  const clock = mock.method(Date, "now", () => wall - 24 * 3_600_000);

  await later(150);

  clock.mock.restore();
  assert.equal(rings, 1);
});

/** Tabs of a browser. Each has its own storage; all share the locks. */
function tab(locks, kept = {}) {
  const storage = { ...kept };
  return {
    storage,
    async deviceId() {
      globalThis.sessionStorage = {
        getItem: (key) => storage[key] ?? null,
        setItem: (key, value) => (storage[key] = value),
      };
      Object.defineProperty(globalThis, "navigator", { configurable: true, value: locks ? { locks } : {} });
      return tabDeviceId();
    },
  };
}

function sharedLocks() {
  const held = new Set();
  return {
    request(name, _, callback) {
      const lock = held.has(name) ? null : { name };
      if (lock) held.add(name);
      return Promise.resolve(callback(lock));
    },
    release: () => held.clear(),
  };
}

test("a tab keeps its id after a reload, and a duplicated tab gets a new one", async () => {
  const locks = sharedLocks();
  const first = tab(locks);
  const id = await first.deviceId();
  const duplicate = tab(locks, first.storage);

  const other = await duplicate.deviceId();
  locks.release(); // unloading the page releases its locks
  const reloaded = tab(locks, first.storage);

  assert.match(id, /^tab-[0-9a-f-]{36}$/);
  assert.notEqual(other, id);
  assert.equal(await reloaded.deviceId(), id);
});

test("an id exists without locks and storage", async () => {
  const bare = tab(undefined);
  const id = await bare.deviceId();
  assert.equal(await bare.deviceId(), id);

  Object.defineProperty(globalThis, "sessionStorage", {
    configurable: true,
    get() {
      throw new Error("forbidden");
    },
  });
  assert.match(await tabDeviceId(), /^tab-/);
});
