/**
 * The server's clock. The local clock may be minutes off, which would distort elapsed times. The `Date`
 * headers of the server's answers show the difference.
 */

const TOLERANCE = 2000; // ms; the accuracy of an HTTP date with network latency

let offset = 0; // ms by which the server is ahead

/** Update the offset from the `Date` header of an answer. */
export function syncClock(date: string | null, sentAt: number, receivedAt: number): void {
  const server = date === null ? Number.NaN : Date.parse(date);
  if (!Number.isNaN(server)) {
    const ahead = server + 500 - (sentAt + receivedAt) / 2; // the header has a resolution of a second
    offset = Math.abs(ahead) < TOLERANCE ? 0 : ahead;
  }
}

/** Return the current time of the server, in ms. */
export function serverNow(): number {
  return Date.now() + offset;
}
