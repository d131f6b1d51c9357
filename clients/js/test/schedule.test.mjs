/** The alarm, and the device id: what sleep, clock jumps and duplicated tabs do to them. */

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { tabDeviceId } from "../dist/device.js";
import { Alarm } from "../dist/schedule.js";

const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

test("it rings once, when its time has come", async () => {
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

test("a machine that slept over it rings on waking, though the monotonic clock stood still", () => {
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

test("a wall clock that is set back does not hold it up", async () => {
  let rings = 0;
  new Alarm(60, () => (rings += 1));
  const wall = Date.now();
  const clock = mock.method(Date, "now", () => wall - 24 * 3_600_000);

  await later(150);

  clock.mock.restore();
  assert.equal(rings, 1);
});

/** A browser's tabs: each has its own storage, all share the locks. */
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

test("a tab keeps its id over a reload, and a duplicated tab gets another", async () => {
  const locks = sharedLocks();
  const first = tab(locks);
  const id = await first.deviceId();
  const duplicate = tab(locks, first.storage);

  const other = await duplicate.deviceId();
  locks.release(); // the first page unloads: its locks end with it
  const reloaded = tab(locks, first.storage);

  assert.match(id, /^tab-[0-9a-f-]{36}$/);
  assert.notEqual(other, id);
  assert.equal(await reloaded.deviceId(), id);
});

test("without locks or storage there still is an id", async () => {
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
