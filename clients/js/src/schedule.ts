/** An alarm that survives sleep and changes of the system clock. */

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
      this.#timer = setTimeout(this.#look, Math.min(left, LOOK_MS));
    }
  }
}
