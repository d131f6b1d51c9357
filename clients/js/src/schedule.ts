/** Deadlines, timers and delays that are correct after sleep and clock changes. Delays can end early. */

/** The clocks and timers of the machine. Times are in milliseconds. */
export interface Clock {
  /** The wall clock, which can be set. */
  now(): number;
  /** The monotonic clock, which stops while some machines sleep. */
  elapsed(): number;
  /**
   * Call `callback` after a delay. Returns a function that cancels the call. A timer in the background does not keep a Node
   * process alive.
   */
  after(milliseconds: number, callback: () => void, isInBackground?: boolean): () => void;
}

export const SYSTEM_CLOCK: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  after: (milliseconds, callback, isInBackground = false) => {
    const timer = setTimeout(callback, milliseconds);
    if (isInBackground) (timer as { unref?: () => void }).unref?.();
    return () => clearTimeout(timer);
  },
};

/** A time that has passed as soon as one of the two clocks shows it. */
export class Deadline {
  readonly #clock: Clock;
  readonly #wall: number;
  readonly #monotonic: number;

  constructor(milliseconds: number, clock: Clock) {
    this.#clock = clock;
    this.#wall = clock.now() + milliseconds;
    this.#monotonic = clock.elapsed() + milliseconds;
  }

  /** Milliseconds until the deadline; zero or negative when it has passed. */
  get left(): number {
    return Math.min(this.#wall - this.#clock.now(), this.#monotonic - this.#clock.elapsed());
  }

  get hasPassed(): boolean {
    return this.left <= 0;
  }
}

/** Interval at which the clocks are checked. A browser may extend it in a hidden tab. */
const CHECK_INTERVAL_MS = 15_000;

const WAKE_EVENTS = ["pageshow", "online", "focus"] as const;

/** Calls `callback` once at its deadline. Also checks the clocks when the page becomes active again. */
export class Timer {
  readonly #callback: () => void;
  readonly #clock: Clock;
  readonly #deadline: Deadline;
  #cancelCheck: () => void = () => undefined;
  readonly #onWake = (): void => this.#check();

  constructor(milliseconds: number, callback: () => void, clock: Clock = SYSTEM_CLOCK) {
    this.#callback = callback;
    this.#clock = clock;
    this.#deadline = new Deadline(milliseconds, clock);
    for (const name of WAKE_EVENTS) globalThis.addEventListener?.(name, this.#onWake);
    globalThis.document?.addEventListener("visibilitychange", this.#onWake);
    this.#check();
  }

  cancel(): void {
    this.#cancelCheck();
    for (const name of WAKE_EVENTS) globalThis.removeEventListener?.(name, this.#onWake);
    globalThis.document?.removeEventListener("visibilitychange", this.#onWake);
  }

  #check(): void {
    this.#cancelCheck();
    const { left } = this.#deadline;
    if (left <= 0) {
      this.cancel();
      this.#callback();
    } else {
      this.#cancelCheck = this.#clock.after(Math.ceil(Math.min(left, CHECK_INTERVAL_MS)), this.#onWake, true);
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
export function sleep(milliseconds: number, clock: Clock, signal?: AbortSignal, untilOnline = false): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      cancel();
      globalThis.removeEventListener?.("online", done);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const cancel = clock.after(milliseconds, done);
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
