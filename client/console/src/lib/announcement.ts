/** Screen reader announcements for the open job: status changes, and each quarter of progress. */

import type { JobState } from "@jobcast/client";
import { errorText, headline } from "./headline";

/** Return the announcement for a change of a job's state, or null. */
export function announcement(before: JobState, after: JobState, now: number): string | null {
  if (after.joined !== "yes" || (before.updatedAt === null && before.joined !== "yes")) {
    return null; // the page was just opened, and the user reads it anyway
  }
  if (after.status !== before.status || after.run !== before.run) {
    const { sentence } = headline(after, now);
    const cause = after.error && errorText(after.error.error, after.error.message);
    return cause ? `${sentence}: ${cause}` : sentence;
  }
  const [quarter, previous] = [quarterOf(after), quarterOf(before)];
  return after.status === "started" && quarter > previous && quarter < 4
    ? `${quarter * 25}%`
    : null;
}

function quarterOf({ percentage }: JobState): number {
  return Math.floor((percentage ?? 0) / 25);
}
