import { reportUncaught } from "./errors.js";

/**
 * A value that changes over time, in the shape of React's `useSyncExternalStore`. Both functions are
 * bound, so they can be passed on their own.
 */
export interface Store<T> {
  /** Call `listener` after changes, at most once per frame. Returns a function that unsubscribes. */
  readonly subscribe: (listener: () => void) => () => void;
  /** Return the current value. It is immutable, and the same object until it changes. */
  readonly getSnapshot: () => T;
}

/** A set of listeners. A listener that throws does not affect the others. */
export class Listeners<A extends unknown[] = []> {
  readonly #listeners = new Set<{ readonly call: (...args: A) => void }>();

  get size(): number {
    return this.#listeners.size;
  }

  /** Add a listener. A function that is added twice is called twice. Returns a function to remove it. */
  add(call: (...args: A) => void): () => void {
    const entry = { call };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  notify(...args: A): void {
    for (const entry of [...this.#listeners]) {
      if (this.#listeners.has(entry)) {
        callSafely(() => entry.call(...args));
      }
    }
  }

  clear(): void {
    this.#listeners.clear();
  }
}

/** Call a user's function and report what it throws. */
export function callSafely(call: () => void): void {
  try {
    call();
  } catch (error) {
    reportUncaught(error);
  }
}
