import type { Store } from "../src/index.js";

const LONGEST = 20_000; // ms that a condition may take on a loaded machine

/** Waits until a store's value is as wanted, and gives the value. */
export function until<T>(store: Store<T>, wanted: (value: T) => boolean, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const check = (): void => {
      const value = store.getSnapshot();
      if (wanted(value)) {
        end();
        resolve(value);
      }
    };
    const stop = store.subscribe(check);
    const timer = setTimeout(() => {
      end();
      reject(new Error(`there was no: ${what}; but ${JSON.stringify(store.getSnapshot())}`));
    }, LONGEST);
    const end = (): void => {
      stop();
      clearTimeout(timer);
    };
    check();
  });
}

/** Waits until a condition is true, which has to be asked for. */
export async function eventually<T>(ask: () => T | Promise<T>, what: string): Promise<T> {
  const deadline = Date.now() + LONGEST;
  for (;;) {
    const answer = await ask();
    if (answer) {
      return answer;
    }
    if (Date.now() > deadline) {
      throw new Error(`there was no: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
