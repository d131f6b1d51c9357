/** The alarm after sleep and clock changes. */

import assert from "node:assert/strict";
import { mock, test } from "node:test";

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
