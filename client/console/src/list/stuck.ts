/** Jobs that may need a person: stalled, retrying often, or queued for long. */

import { isTerminal, type JobSummary } from "@jobcast/client";
import { formatDuration } from "../lib/formatDuration";

const LONG_QUEUE = 60_000; // ms in the queue
const MANY_ATTEMPTS = 3;

export interface Stuck {
  /** Why the job counts as stuck. */
  readonly reason: string;
  /** The order among stuck jobs: a lower rank first. */
  readonly rank: number;
}

/**
 * Return why a job is stuck; null if it is not.
 *
 * @param now the server's time in ms.
 */
export function stuckReason(job: JobSummary, now: number): Stuck | null {
  if (hasEnded(job)) {
    return null;
  }
  if (job.status === "stalled") {
    return { reason: "The worker stopped reporting", rank: 0 };
  }
  if (job.attempt >= MANY_ATTEMPTS) {
    return { reason: attemptText(job), rank: 1 };
  }
  const waited = now - Date.parse(job.createdAt);
  return isWaiting(job) && waited > LONG_QUEUE
    ? { reason: `Waiting for a worker for ${formatDuration(waited)}`, rank: 2 }
    : null;
}

/** Return the number of the attempt, and why the last one failed if the job says so. */
export function attemptText({ attempt, message }: JobSummary): string {
  return `Attempt ${attempt}${message ? `: ${message}` : ""}`;
}

/** Return whether a job has ended, also in a state that this version of the page does not know. */
export function hasEnded({ status, endedAt }: JobSummary): boolean {
  return isTerminal(status) || endedAt !== null;
}

export function isWaiting({ status }: JobSummary): boolean {
  return status === "queued" || status === "pending";
}
