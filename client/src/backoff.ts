export const BASE_DELAY = 100; // ms before the first retry
export const MAX_DELAY = 5000; // ms between two attempts
export const MAX_RETRY_AFTER = 60_000; // ms; a longer `retry_after` of a server is cut to this
const JITTER = 0.25; // the largest share of `retry_after` that is added at random

/** Refusals after which the same request may succeed. */
export const RETRYABLE_CODES: ReadonlySet<string> = new Set([
  "unavailable",
  "internal_error",
  "rate_limited",
]);

/** The code for an acknowledgement that violates the protocol. */
export const INVALID_ACK = "invalid_ack";

/** Refusals of a join after which the same join may succeed. */
export const RETRYABLE_JOIN_CODES: ReadonlySet<string> = new Set([
  ...RETRYABLE_CODES,
  "not_authenticated",
  INVALID_ACK,
]);

/** Retries that `backoff` assumes after the server ended a join: a delay of 0.4 to 0.8 s. */
export const REJOIN_RETRIES = 3;

/**
 * Return the delay before the next attempt, in ms. It doubles with each retry up to `MAX_DELAY`.
 * Random jitter keeps the clients of a failed server from reconnecting at the same moment.
 *
 * @param retries the number of retries so far, from 0.
 * @param random a number from 0 to 1.
 */
export function backoff(retries: number, random: number = Math.random()): number {
  const longest = Math.min(MAX_DELAY, BASE_DELAY * 2 ** retries);
  return longest * (0.5 + random / 2);
}

/**
 * Return the delay before a refused request is sent again, in ms. It is at least the server's
 * `retry_after`, up to `MAX_RETRY_AFTER`, plus jitter.
 *
 * @param retries the number of retries so far, from 0.
 * @param random a number from 0 to 1.
 */
export function retryDelay(
  { retry_after = 0 }: { readonly retry_after?: number },
  retries: number,
  random: number = Math.random(),
): number {
  const requested = Math.min(MAX_RETRY_AFTER, retry_after * 1000);
  return Math.max(requested * (1 + JITTER * random), backoff(retries, random));
}
