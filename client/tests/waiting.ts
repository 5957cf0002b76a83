import type { Store } from "../src/index.js";

const TIMEOUT = 60_000; // ms, generous because the machine may be loaded

/** Wait until a store's value meets a condition, and return the value. */
export function until<T>(store: Store<T>, isMet: (value: T) => boolean, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const check = (): void => {
      const value = store.getSnapshot();
      if (isMet(value)) {
        end();
        resolve(value);
      }
    };
    const stop = store.subscribe(check);
    const timer = setTimeout(() => {
      end();
      reject(
        new Error(
          `timed out waiting for ${what}; the value is ${JSON.stringify(store.getSnapshot())}`,
        ),
      );
    }, TIMEOUT);
    const end = (): void => {
      stop();
      clearTimeout(timer);
    };
    check();
  });
}

/** Poll until a condition yields a truthy value, and return that value. */
export async function eventually<T>(poll: () => T | Promise<T>, what: string): Promise<T> {
  const deadline = Date.now() + TIMEOUT;
  for (;;) {
    const value = await poll();
    if (value) {
      return value;
    }
    if (Date.now() > deadline) {
      throw new Error(`timed out waiting for ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
