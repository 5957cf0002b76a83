export const FIRST_DELAY = 100; // ms before the first new try
export const LONGEST_DELAY = 5000; // ms between two tries
export const LONGEST_PAUSE = 60_000; // ms that a server may have a request wait
const PAUSE_SPREAD = 0.25; // of a pause: so much later, at most, is the next try

/**
 * How long to wait before a try, in ms: twice as long each time, up to a bound, and never the same
 * for two clients, so that those of a server that went away don't come back all at once.
 *
 * @param tries how many there were before, from 0.
 * @param random from 0 to 1.
 */
export function backoff(tries: number, random: number = Math.random()): number {
  const longest = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** tries);
  return longest * (0.5 + random / 2);
}

/**
 * How long to wait before a refused request is sent again, in ms: at least as long as the server
 * asks for, up to a bound, and spread, so that requests of one moment don't come back in one.
 *
 * @param tries how many there were before, from 0.
 * @param random from 0 to 1.
 */
export function pauseAfter(
  { retry_after = 0 }: { readonly retry_after?: number },
  tries: number,
  random: number = Math.random(),
): number {
  const asked = Math.min(LONGEST_PAUSE, retry_after * 1000);
  return Math.max(asked * (1 + PAUSE_SPREAD * random), backoff(tries, random));
}
