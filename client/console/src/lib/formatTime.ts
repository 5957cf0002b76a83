/** Formatting of times, in the local time zone. */

const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const WHOLE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** Format a time: `17:02:45`. */
export function formatTime(timestamp: string): string {
  return TIME.format(Date.parse(timestamp));
}

/** Format a time with milliseconds: `17:02:45.123`. */
export function formatExactTime(timestamp: string): string {
  const at = Date.parse(timestamp);
  return `${TIME.format(at)}.${String(at % 1000).padStart(3, "0")}`;
}

/** Format a time, with the day if it is not today. */
export function formatDayAndTime(timestamp: string, now: number): string {
  const at = Date.parse(timestamp);
  const sameDay = new Date(at).toDateString() === new Date(now).toDateString();
  return sameDay ? TIME.format(at) : `${DAY.format(at)}, ${TIME.format(at)}`;
}

/** Format a date and a time: `24 Nov 2026, 17:02:45`. */
export function formatDateTime(timestamp: string): string {
  return WHOLE.format(Date.parse(timestamp));
}
