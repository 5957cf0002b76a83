/** What a screen reader is told of the job that is open: changes of its state, and quarters. */

import type { JobState } from "@jobcast/client";
import { errorText, headlineOf } from "./headline";

/** What to say after `before` became `after`; null for nothing. Both are of one job. */
export function announcement(before: JobState, after: JobState, now: number): string | null {
  if (after.joined !== "yes" || (before.updatedAt === null && before.joined !== "yes")) {
    return null; // the page was just opened: who opened it reads it
  }
  if (after.status !== before.status || after.run !== before.run) {
    const { sentence } = headlineOf(after, now);
    const why = after.error && errorText(after.error.error, after.error.message);
    return why ? `${sentence}: ${why}` : sentence;
  }
  const [quarter, was] = [quarterOf(after), quarterOf(before)];
  return after.status === "started" && quarter > was && quarter < 4 ? `${quarter * 25}%` : null;
}

function quarterOf({ percentage }: JobState): number {
  return Math.floor((percentage ?? 0) / 25);
}
