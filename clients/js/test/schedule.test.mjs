/** The timer after sleep and clock changes. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Timer } from "../dist/schedule.js";
import { ManualClock } from "./clock.mjs";

const HOUR = 3_600_000;

function timer(clock, milliseconds) {
  const calls = [];
  const made = new Timer(milliseconds, () => calls.push(clock.elapsed()), clock);
  return { made, calls };
}

test("the timer fires once after its delay", async () => {
  const clock = new ManualClock();
  const { calls } = timer(clock, HOUR);

  await clock.advance(HOUR - 1);
  assert.deepEqual(calls, []);
  await clock.advance(HOUR);
  assert.deepEqual(calls, [HOUR]);
});

test("a cancelled timer does not fire", async () => {
  const clock = new ManualClock();
  const { made, calls } = timer(clock, HOUR);
  made.cancel();

  await clock.advance(2 * HOUR);

  assert.deepEqual(calls, []);
});

test("the timer fires when the page becomes active after a sleep, although the monotonic clock stopped", () => {
  const listeners = new Map();
  globalThis.addEventListener = (name, listener) => listeners.set(name, listener);
  globalThis.removeEventListener = () => undefined;
  const clock = new ManualClock();
  const { calls } = timer(clock, HOUR);
  clock.setWall(8 * HOUR);

  listeners.get("pageshow")();

  delete globalThis.addEventListener;
  delete globalThis.removeEventListener;
  assert.deepEqual(calls, [0]);
});

test("the timer fires at the next check after a sleep without an event of the page", async () => {
  const clock = new ManualClock();
  const { calls } = timer(clock, HOUR);
  clock.setWall(8 * HOUR);

  await clock.advance(15_000);

  assert.deepEqual(calls, [15_000]);
});

test("a wall clock that is set back does not delay the timer", async () => {
  const clock = new ManualClock();
  const { calls } = timer(clock, HOUR);
  clock.setWall(-24 * HOUR);

  await clock.advance(HOUR);

  assert.deepEqual(calls, [HOUR]);
});
