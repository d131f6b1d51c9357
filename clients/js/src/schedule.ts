/** Waiting: an alarm that survives sleep and clock changes, and pauses that end early. */

/** Interval at which the clocks are checked. A browser may extend it in a hidden tab. */
const LOOK_MS = 15_000;

const WAKING = ["pageshow", "online", "focus"] as const;

/**
 * Calls `ring` once when `delayMs` have passed on either clock. The monotonic clock stops while some machines sleep, and the
 * wall clock can be set back. Also checks the clocks when the page becomes active again.
 */
export class Alarm {
  readonly #ring: () => void;
  readonly #dueWall: number;
  readonly #dueMonotonic: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #look = (): void => this.#check();

  constructor(delayMs: number, ring: () => void) {
    this.#ring = ring;
    this.#dueWall = Date.now() + delayMs;
    this.#dueMonotonic = performance.now() + delayMs;
    for (const name of WAKING) globalThis.addEventListener?.(name, this.#look);
    globalThis.document?.addEventListener("visibilitychange", this.#look);
    this.#check();
  }

  cancel(): void {
    clearTimeout(this.#timer);
    for (const name of WAKING) globalThis.removeEventListener?.(name, this.#look);
    globalThis.document?.removeEventListener("visibilitychange", this.#look);
  }

  #check(): void {
    clearTimeout(this.#timer);
    const left = Math.min(this.#dueWall - Date.now(), this.#dueMonotonic - performance.now());
    if (left <= 0) {
      this.cancel();
      this.#ring();
    } else {
      this.#timer = setTimeout(this.#look, Math.ceil(Math.min(left, LOOK_MS)));
    }
  }
}

/** Delays between attempts without `Retry-After`: doubled each time, with 25 % jitter in both directions. */
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 30_000;

export function pause(tries: number, first = FIRST_PAUSE_MS, max = MAX_PAUSE_MS): number {
  return Math.min(first * 2 ** (tries - 1), max) * (0.75 + Math.random() / 2);
}

/** Wait. `signal` ends the wait early, and with `untilOnline` the `online` event too. */
export function sleep(milliseconds: number, signal?: AbortSignal, untilOnline = false): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", done);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    if (untilOnline) globalThis.addEventListener?.("online", done);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}

/** The value of the promise. Rejects early if the signal aborts. */
export function unlessAborted<Value>(value: Promise<Value> | Value, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(new Error("aborted"));
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    void Promise.resolve(value)
      .then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", abort));
  });
}
