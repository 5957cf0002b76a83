/** Formatting of durations. All values are in milliseconds unless stated otherwise. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Format a running duration: `0:42`, `12:03`, `1:02:03`. */
export function formatClock(ms: number): string {
  const whole = Math.max(0, Math.floor(ms / SECOND));
  const seconds = String(whole % 60).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  return hours > 0
    ? `${hours}:${String(minutes).padStart(2, "0")}:${seconds}`
    : `${minutes}:${seconds}`;
}

/** Format a duration: `80 ms`, `4.2 s`, `42 s`, `3 min 7 s`, `2 h 5 min`, `3 d 4 h`. */
export function formatDuration(ms: number): string {
  const length = Math.max(0, ms);
  if (length < 100) {
    return `${Math.round(length)} ms`;
  }
  if (length < 9950) {
    return `${(length / SECOND).toFixed(1)} s`;
  }
  if (length < MINUTE - SECOND / 2) {
    return `${Math.round(length / SECOND)} s`;
  }
  if (length < HOUR) {
    return pair(Math.round(length / SECOND), 60, "min", "s");
  }
  return length < DAY
    ? pair(Math.round(length / MINUTE), 60, "h", "min")
    : pair(Math.round(length / HOUR), 24, "d", "h");
}

/** Format an estimate in seconds, rounded to a sensible precision: `about 5 min`. */
export function formatEstimate(seconds: number): string {
  if (seconds < 1.5) {
    return "about 1 s";
  }
  if (seconds < 90) {
    const coarse = seconds < 20 ? Math.round(seconds) : Math.round(seconds / 5) * 5;
    return `about ${coarse} s`;
  }
  const minutes = seconds / 60;
  if (minutes < 90) {
    return `about ${Math.round(minutes)} min`;
  }
  return `about ${pair(Math.round(minutes / 5) * 5, 60, "h", "min")}`;
}

/** Format an age: `just now`, `5 min ago`, `3 h ago`, `2 d ago`. */
export function formatAge(ms: number): string {
  if (ms < MINUTE) {
    return "just now";
  }
  if (ms < HOUR) {
    return `${Math.floor(ms / MINUTE)} min ago`;
  }
  return ms < DAY ? `${Math.floor(ms / HOUR)} h ago` : `${Math.floor(ms / DAY)} d ago`;
}

/** Return the time between two RFC 3339 timestamps, in ms; null if one is missing. */
export function elapsed(from: string | null, to: string | null): number | null {
  return from === null || to === null ? null : Math.max(0, Date.parse(to) - Date.parse(from));
}

function pair(whole: number, base: number, large: string, small: string): string {
  const rest = whole % base;
  const head = `${Math.floor(whole / base)} ${large}`;
  return rest === 0 ? head : `${head} ${rest} ${small}`;
}
