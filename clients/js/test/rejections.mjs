/** A check after each test of a file: no promise was rejected without a handler. */

import assert from "node:assert/strict";
import { afterEach, beforeEach } from "node:test";

import { FakeSdk } from "./simulation.mjs";

export const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Register the check. It also forgets the SDK clients of the previous test. */
export function checkRejections() {
  let unhandled;
  const record = (error) => unhandled.push(error);

  beforeEach(() => {
    FakeSdk.made = [];
    unhandled = [];
    process.on("unhandledRejection", record);
  });

  afterEach(async () => {
    await later(10);
    process.off("unhandledRejection", record);
    assert.deepEqual(unhandled, []);
  });
}
