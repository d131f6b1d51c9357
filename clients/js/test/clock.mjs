/** A clock for tests, which moves only when a test moves it. */

const START = Date.parse("2026-11-23T12:00:00Z");

export class ManualClock {
  #elapsed = 0;
  #wall = START;
  #timers = new Set();

  now = () => this.#wall;
  elapsed = () => this.#elapsed;

  after = (milliseconds, callback) => {
    const timer = { due: this.#elapsed + milliseconds, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  /** Move both clocks, and run the timers that are due. */
  async advance(milliseconds) {
    const end = this.#elapsed + milliseconds;
    for (;;) {
      await settled();
      const [next] = [...this.#timers].filter(({ due }) => due <= end).sort((one, other) => one.due - other.due);
      if (next === undefined) break;
      this.#move(Math.max(next.due - this.#elapsed, 0));
      this.#timers.delete(next);
      next.callback();
    }
    this.#move(end - this.#elapsed);
  }

  /** The machine sleeps: the monotonic clock and the timers stop. A negative time sets the wall clock back. */
  setWall(milliseconds) {
    this.#wall += milliseconds;
  }

  /** The delay until the next timer. */
  get next() {
    return Math.min(...[...this.#timers].map(({ due }) => due)) - this.#elapsed;
  }

  #move(milliseconds) {
    this.#elapsed += milliseconds;
    this.#wall += milliseconds;
  }
}

/** Wait until the simulated service has answered and all promises have settled. */
export async function settled() {
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
