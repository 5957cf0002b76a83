/** A job's way, from its changes of state: steps with their lengths. */

import { isTerminal, type JobState, type StatusChange } from "@jobcast/client";
import { errorText } from "./headline";
import { reasonWords } from "./reasons";

export interface Step {
  readonly seq: number;
  readonly status: StatusChange["status"];
  readonly timestamp: string;
  readonly label: string;
  readonly detail: string | null;
  /** Until the next step, in ms; null for the last one. */
  readonly lasted: number | null;
}

export function stepsOf(history: readonly StatusChange[]): readonly Step[] {
  const shown = history.filter((change, index) => !isEcho(change, history[index - 1]));
  return shown.map((change, index) => {
    const next = shown[index + 1];
    return {
      seq: change.seq,
      status: change.status,
      timestamp: change.timestamp,
      label: labelOf(change, shown, index),
      detail: detailOf(change),
      lasted: next ? Math.max(0, Date.parse(next.timestamp) - Date.parse(change.timestamp)) : null,
    };
  });
}

/** Whether the beginning is not kept any more: of a job's steps, and of its log with them. */
export function isCut({ history, logs, status }: Cut): boolean {
  const [change, line] = [history[0], logs[0]];
  const first = Math.min(
    change?.seq ?? Number.POSITIVE_INFINITY,
    line?.seq ?? Number.POSITIVE_INFINITY,
  );
  if (first === 1 || first === Number.POSITIVE_INFINITY) {
    return false;
  }
  if (change === undefined) {
    return status !== "pending";
  }
  const begins =
    change.status === "queued" || (change.status === "started" && (change.run ?? 1) === 1);
  return !(begins && change.seq === first);
}

type Cut = Pick<JobState, "history" | "logs" | "status">;

/** How many runs have begun. */
export function runsOf(job: JobState): number {
  const runs = new Set<number | string>();
  for (const { status, run, seq } of job.history) {
    if (status === "started") {
      runs.add(run ?? `seq ${seq}`);
    }
  }
  return runs.size;
}

export function labelOf(
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
      return change.attempt === null ? "To be tried again" : `Attempt ${change.attempt} due`;
    case "stalled":
      return "Its worker is not heard of any more";
    case "complete":
      return "Done";
    case "error":
      return change.reason ? reasonWords(change.reason).word : "Failed";
    case "pending":
      return "Not heard of";
  }
}

function queuedLabel(before: StatusChange | undefined): string {
  if (before === undefined) {
    return "Queued";
  }
  return isTerminal(before.status) ? "Queued again" : "Another task takes its place";
}

function startedLabel(
  change: StatusChange,
  history: readonly StatusChange[],
  index: number,
): string {
  if (history[index - 1]?.status === "stalled" && knewRun(change, history, index)) {
    return `Run ${change.run} is heard of again`;
  }
  const run = change.run === null ? "Started" : `Run ${change.run} started`;
  return change.attempt !== null && change.attempt !== change.run
    ? `${run}, attempt ${change.attempt}`
    : run;
}

function knewRun(change: StatusChange, history: readonly StatusChange[], index: number): boolean {
  return history.slice(0, index).some((one) => one.status === "started" && one.run === change.run);
}

function detailOf(change: StatusChange): string | null {
  return errorText(change.error, change.message);
}

function isEcho(change: StatusChange, before: StatusChange | undefined): boolean {
  return change.status === "queued" && before?.status === "queued" && change.task === before.task;
}
