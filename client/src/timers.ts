import { attempt } from "./store.js";

/** Timers that end together, so that closing leaves none behind. */
export class Timers {
  readonly #running = new Set<ReturnType<typeof setTimeout>>();

  /** Calls `action` once after so many milliseconds. Returns what calls it off. */
  after(delay: number, action: () => void): () => void {
    const timer = setTimeout(() => {
      this.#running.delete(timer);
      attempt(action); // nobody is there to catch it, and in Node it would end the process
    }, delay);
    this.#running.add(timer);
    return () => {
      this.#running.delete(timer);
      clearTimeout(timer);
    };
  }

  get size(): number {
    return this.#running.size;
  }

  clear(): void {
    for (const timer of this.#running) {
      clearTimeout(timer);
    }
    this.#running.clear();
  }
}
