import { report } from "./errors.js";

/** A value that changes, as React's `useSyncExternalStore` and others want it. Both are bound. */
export interface Store<T> {
  /** Calls `listener` after changes, at most once a frame. Returns what ends that. */
  readonly subscribe: (listener: () => void) => () => void;
  /** The value: immutable, and the same object until something changes. */
  readonly getSnapshot: () => T;
}

/** Functions to be called. Each is called by itself: one that throws hurts no other. */
export class Listeners<A extends unknown[] = []> {
  readonly #listeners = new Set<{ readonly call: (...args: A) => void }>();

  get size(): number {
    return this.#listeners.size;
  }

  /** The same function may be added twice, and is then called twice. */
  add(call: (...args: A) => void): () => void {
    const entry = { call };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  tell(...args: A): void {
    for (const entry of [...this.#listeners]) {
      if (this.#listeners.has(entry)) {
        attempt(() => entry.call(...args));
      }
    }
  }

  clear(): void {
    this.#listeners.clear();
  }
}

/** Calls a function that somebody else wrote. */
export function attempt(call: () => void): void {
  try {
    call();
  } catch (error) {
    report(error);
  }
}
