/**
 * What time it is where the jobs run. A laptop's clock may be minutes off, and "running for 3 s"
 * would be nonsense then: the server's answers say how far off it is.
 */

const TOLERATED = 2000; // ms: as exact as an HTTP date with the way it took

let offset = 0; // ms that the server is ahead

/** Learns from an answer's `Date`. */
export function learn(date: string | null, asked: number, answered: number): void {
  const server = date === null ? Number.NaN : Date.parse(date);
  if (!Number.isNaN(server)) {
    const ahead = server + 500 - (asked + answered) / 2; // the header has whole seconds
    offset = Math.abs(ahead) < TOLERATED ? 0 : ahead;
  }
}

/** Now, in ms, by the server's clock. */
export function serverNow(): number {
  return Date.now() + offset;
}
