import { callSafely } from "./store.js";

/** Timers that are cancelled together, so that a closed client leaves none behind. */
export class Timers {
  readonly #running = new Set<ReturnType<typeof setTimeout>>();

  /** Call `action` once after `delay` milliseconds. Returns a function that cancels it. */
  after(delay: number, action: () => void): () => void {
    const timer = setTimeout(() => {
      this.#running.delete(timer);
      callSafely(action); // in Node, an uncaught exception would end the process
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
