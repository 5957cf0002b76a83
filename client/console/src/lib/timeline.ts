/** The timeline of a job: its status changes as steps with durations. */

import { isTerminal, type JobState, type StatusChange } from "@jobcast/client";
import { errorText } from "./headline";
import { labelOf } from "./openValue";
import { reasonText } from "./reasonText";
import { isCancellation } from "./statusBadge";

export interface Step {
  readonly seq: number;
  readonly status: StatusChange["status"];
  readonly timestamp: string;
  readonly label: string;
  readonly detail: string | null;
  /** Until the next step, in ms; null for the last one. */
  readonly duration: number | null;
}

export function timelineSteps(history: readonly StatusChange[]): readonly Step[] {
  const shown = history.filter((change, index) => !isDuplicate(change, history[index - 1]));
  return shown.map((change, index) => {
    const next = shown[index + 1];
    return {
      seq: change.seq,
      status: isCancellation(change.reason) ? "cancelled" : change.status,
      timestamp: change.timestamp,
      label: changeLabel(change, shown, index),
      detail: errorText(change.error, change.message),
      duration: next
        ? Math.max(0, Date.parse(next.timestamp) - Date.parse(change.timestamp))
        : null,
    };
  });
}

/** Return whether status changes before the first known one may be missing. */
export function isTruncated({ history, gaps }: Pick<JobState, "history" | "gaps">): boolean {
  const [change, gap] = [history[0], gaps[0]];
  if (change === undefined || gap === undefined || isBeginning(change)) {
    return false;
  }
  return gap.after + 1 < change.seq;
}

function isBeginning({ status, run }: StatusChange): boolean {
  return status === "queued" || (status === "started" && (run ?? 1) === 1);
}

/** Return the number of runs that have started. */
export function countRuns(job: JobState): number {
  const runs = new Set<number | string>();
  for (const { status, run, seq } of job.history) {
    if (status === "started") {
      runs.add(run ?? `seq ${seq}`);
    }
  }
  return runs.size;
}

export function changeLabel(
  change: StatusChange,
  history: readonly StatusChange[],
  index: number,
): string {
  switch (change.status) {
    case "queued":
      return queuedLabel(history[index - 1]);
    case "started":
      return startedLabel(change, history, index);
    case "retrying":
      return change.attempt === null ? "Retry scheduled" : `Attempt ${change.attempt} scheduled`;
    case "stalled":
      return "Worker stopped reporting";
    case "complete":
      return "Done";
    case "error":
      return change.reason ? reasonText(change.reason).label : "Failed";
    case "pending":
      return "Unknown";
    default:
      return labelOf(change.status);
  }
}

function queuedLabel(before: StatusChange | undefined): string {
  if (before === undefined) {
    return "Queued";
  }
  return isTerminal(before.status) ? "Queued again" : "Replaced by another task";
}

function startedLabel(
  change: StatusChange,
  history: readonly StatusChange[],
  index: number,
): string {
  if (history[index - 1]?.status === "stalled" && hasStarted(change, history, index)) {
    return `Run ${change.run} resumed`;
  }
  const run = change.run === null ? "Started" : `Run ${change.run} started`;
  return change.attempt !== null && change.attempt !== change.run
    ? `${run}, attempt ${change.attempt}`
    : run;
}

function hasStarted(
  change: StatusChange,
  history: readonly StatusChange[],
  index: number,
): boolean {
  return history.slice(0, index).some((one) => one.status === "started" && one.run === change.run);
}

function isDuplicate(change: StatusChange, before: StatusChange | undefined): boolean {
  return change.status === "queued" && before?.status === "queued" && change.task === before.task;
}
