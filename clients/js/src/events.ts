/** A typed event emitter. */

export class Emitter<Events extends object> {
  readonly #listeners = new Map<keyof Events, Set<(value: never) => void>>();

  /** Add a listener. Returns a function that removes it. */
  on<Name extends keyof Events>(name: Name, listener: (value: Events[Name]) => void): () => void {
    const found = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, found);
    found.add(listener as (value: never) => void);
    return () => void found.delete(listener as (value: never) => void);
  }

  /** Call the listeners. An error of a listener is reported as an uncaught error of the page, and affects nothing else. */
  protected emit<Name extends keyof Events>(name: Name, value: Events[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        (listener as (value: Events[Name]) => void)(value);
      } catch (error) {
        (globalThis.reportError ?? console.error)(error);
      }
    }
  }
}
