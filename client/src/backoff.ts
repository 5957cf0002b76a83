export const FIRST_DELAY = 100; // ms before the first new try
export const LONGEST_DELAY = 5000; // ms between two tries

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
