/** Times of the day, where the reader is. */

const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const WHOLE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** `17:02:45` */
export function timeOf(timestamp: string): string {
  return TIME.format(Date.parse(timestamp));
}

/** `17:02:45.123` */
export function exactTimeOf(timestamp: string): string {
  const at = Date.parse(timestamp);
  return `${TIME.format(at)}.${String(at % 1000).padStart(3, "0")}`;
}

/** The time, with the day if it was another one. */
export function dayAndTimeOf(timestamp: string, now: number): string {
  const at = Date.parse(timestamp);
  const sameDay = new Date(at).toDateString() === new Date(now).toDateString();
  return sameDay ? TIME.format(at) : `${DAY.format(at)}, ${TIME.format(at)}`;
}

/** `24 Nov 2026, 17:02:45` */
export function wholeTimeOf(timestamp: string): string {
  return WHOLE.format(Date.parse(timestamp));
}
