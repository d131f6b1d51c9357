/** The alarm after sleep and clock changes. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Alarm } from "../dist/schedule.js";
import { ManualClock } from "./clock.mjs";

const HOUR = 3_600_000;

function alarm(clock, milliseconds) {
  const rings = [];
  const made = new Alarm(milliseconds, () => rings.push(clock.elapsed()), clock);
  return { made, rings };
}

test("the alarm rings once after its delay", async () => {
  const clock = new ManualClock();
  const { rings } = alarm(clock, HOUR);

  await clock.advance(HOUR - 1);
  assert.deepEqual(rings, []);
  await clock.advance(HOUR);
  assert.deepEqual(rings, [HOUR]);
});

test("a cancelled alarm does not ring", async () => {
  const clock = new ManualClock();
  const { made, rings } = alarm(clock, HOUR);
  made.cancel();

  await clock.advance(2 * HOUR);

  assert.deepEqual(rings, []);
});

test("the alarm rings when the page becomes active after a sleep, although the monotonic clock stopped", () => {
  const listeners = new Map();
  globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
  globalThis.removeEventListener = () => undefined;
  const clock = new ManualClock();
  const { rings } = alarm(clock, HOUR);
  clock.setWall(8 * HOUR);

  listeners.get("pageshow")();

  delete globalThis.addEventListener;
  delete globalThis.removeEventListener;
  assert.deepEqual(rings, [0]);
});

test("the alarm rings at the next look after a sleep without an event of the page", async () => {
  const clock = new ManualClock();
  const { rings } = alarm(clock, HOUR);
  clock.setWall(8 * HOUR);

  await clock.advance(15_000);

  assert.deepEqual(rings, [15_000]);
});

test("a wall clock that is set back does not delay the alarm", async () => {
  const clock = new ManualClock();
  const { rings } = alarm(clock, HOUR);
  clock.setWall(-24 * HOUR);

  await clock.advance(HOUR);

  assert.deepEqual(rings, [HOUR]);
});
