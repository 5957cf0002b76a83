/** The status of a job in one sentence. */

import type { JobState } from "@jobcast/client";
import { elapsed, formatClock, formatDuration, formatEstimate } from "./formatDuration";
import { formatPercent } from "./formatNumber";
import { labelOf } from "./openValue";
import { reasonText } from "./reasonText";
import { isLoading, statusBadge } from "./statusBadge";

export interface Headline {
  readonly sentence: string;
  /** Further explanation, or null. */
  readonly hint: string | null;
  /** What the user can do. */
  readonly advice?: string;
}

const LONG_MESSAGE = 100; // characters; longer messages go last, because lines may be truncated
const SLOW_QUEUE = 10_000; // ms in the queue, after which the hint changes

/**
 * Return the headline of a job.
 *
 * @param now the server's time in ms.
 */
export function headline(job: JobState, now: number): Headline {
  if (job.joined === "refused") {
    return refused(job);
  }
  switch (job.status) {
    case "pending":
      return isLoading(job)
        ? loading(job)
        : {
            sentence: "No events of this job yet",
            hint: "The page updates when the first event arrives.",
          };
    case "queued":
      return queued(job, now);
    case "started":
      return { sentence: running(job, now), hint: null };
    case "retrying":
      return retrying(job, now);
    case "stalled":
      return {
        sentence: "Stalled: the worker stopped reporting",
        hint: "Waiting for the worker to return, or for another worker to take over the job.",
      };
    case "complete":
      return {
        sentence: `Done${totalDuration(job)}${job.attempt > 1 ? `, on attempt ${job.attempt}` : ""}`,
        hint: null,
      };
    case "error":
      return failed(job);
    case "cancelling":
      return cancelling(job);
    case "cancelled":
      return cancelled(job);
    default:
      return { sentence: labelOf(job.status), hint: statusMessage(job) };
  }
}

/** Return the estimated remaining seconds at `now`, or null. */
export function remainingSeconds(job: JobState, now: number): number | null {
  if (job.eta === null || job.updatedAt === null || job.status !== "started") {
    return null;
  }
  return Math.max(0, job.eta - Math.max(0, now - Date.parse(job.updatedAt)) / 1000);
}

/** Return the current activity, as the task reports it. */
export function activity(job: JobState): string | null {
  return job.message || job.stage || null;
}

/** Return the text that the job's current status came with. */
export function statusMessage({ history, status }: JobState): string | null {
  const change = history.at(-1);
  return change?.status === status ? errorText(change.error, change.message) : null;
}

/** Format an error as `LedgerError: line 4: ...`. A class name in the message is not repeated. */
export function errorText(error: string | null, message: string | null): string | null {
  if (!error || !message) {
    return error || message || null;
  }
  return message.startsWith(error) ? message : `${error}: ${message}`;
}

function loading({ connection }: JobState): Headline {
  switch (connection) {
    case "reconnecting":
      return {
        sentence: "The page is not connected to the server",
        hint: "The job appears when the connection is back.",
      };
    case "refused":
      return { sentence: "The server refused the connection", hint: null };
    default:
      return { sentence: "Loading…", hint: null };
  }
}

function running(job: JobState, now: number): string {
  const left = remainingSeconds(job, now);
  const text = activity(job);
  const numbers = [
    job.percentage === null ? null : formatPercent(job.percentage),
    left === null ? null : `${formatEstimate(left)} left`,
  ].filter((part) => part !== null);
  if (text !== null && text.length > LONG_MESSAGE) {
    return `${["Running", ...numbers].join(", ")}: ${text}`;
  }
  const parts = text === null ? numbers : [text, ...numbers];
  return parts.length > 0 ? `Running: ${parts.join(", ")}` : "Running";
}

function queued(job: JobState, now: number): Headline {
  const waiting = job.queuedAt === null ? 0 : now - Date.parse(job.queuedAt);
  return {
    sentence: waiting < 1000 ? "Queued" : `Queued for ${formatClock(waiting)}`,
    hint:
      waiting < SLOW_QUEUE
        ? "Waiting for a worker."
        : "No worker has taken the job yet. All workers are busy, or none is running.",
  };
}

function retrying(job: JobState, now: number): Headline {
  const retry = job.retry;
  if (!retry) {
    return { sentence: "Retrying", hint: null };
  }
  const wait = retry.retryAt === null ? 0 : Date.parse(retry.retryAt) - now;
  const seconds = Math.ceil(wait / 1000);
  const due = wait > 0 ? `starts in ${formatWait(seconds)}` : "starts now";
  const cause = errorText(retry.error, retry.message);
  return {
    sentence: `Retrying: attempt ${retry.attempt} ${due}`,
    hint: cause ? `The last attempt failed: ${cause}` : null,
  };
}

/** Format a wait in whole seconds: `8 s`, `3 min 7 s`. */
function formatWait(seconds: number): string {
  return seconds < 60 ? `${seconds} s` : formatDuration(seconds * 1000);
}

function failed(job: JobState): Headline {
  const reason = job.error?.reason ?? "failure";
  const { verb, cause, advice } = reasonText(reason);
  return {
    sentence: `${verb}${howFar(job)}`,
    hint: cause,
    ...(advice === undefined ? {} : { advice }),
  };
}

function cancelling(job: JobState): Headline {
  const { by, message } = job.cancellation ?? { by: null, message: null };
  const what = job.terminates
    ? "The worker terminates the run if it does not end by itself."
    : "The run ends where its task checks for the request.";
  return {
    sentence: `Cancelling${by === null ? "" : `, requested by ${by}`}`,
    hint: message === null ? what : `Reason: ${message}. ${what}`,
  };
}

function cancelled(job: JobState): Headline {
  const { by, message, reason } = job.cancellation ?? { by: null, message: null, reason: null };
  const { verb, cause } = reasonText(reason ?? "cancelled");
  return {
    sentence: `${verb}${by === null ? "" : ` by ${by}`}${howFar(job)}`,
    hint: message === null || message === verb ? cause : `Reason: ${message}`,
  };
}

/** How long the job ran, and to which percentage. */
function howFar(job: JobState): string {
  return neverStarted(job) ? " before it started" : `${runDuration(job)}${lastPercentage(job)}`;
}

function refused(job: JobState): Headline {
  switch (job.refusal?.code) {
    case "job_not_found":
      return {
        sentence: "Job not found",
        hint: "The job does not exist, has expired, or belongs to another user.",
      };
    case "invalid_request":
      return {
        sentence: "Invalid job id",
        hint: "A job id has 1 to 128 letters, digits or _ . : @ = + / ~ -",
      };
    case "too_many_jobs":
      return {
        sentence: "Too many followed jobs",
        hint: "Remove other jobs from the list, then try again.",
      };
    default:
      return { sentence: `${statusBadge(job).label}`, hint: job.refusal?.message ?? null };
  }
}

/**
 * Return whether the job ended before it started. The server trims the oldest statuses first, so a job
 * with a known queue time has no other status that is missing.
 */
function neverStarted({ startedAt, queuedAt, logs, run, percentage, message }: JobState): boolean {
  const isSilent = logs.length === 0 && run === null && percentage === null && message === null;
  return startedAt === null && (queuedAt !== null || isSilent);
}

/** The duration of a finished job, from the queue if the start is unknown. */
function totalDuration(job: JobState): string {
  const length = elapsed(job.startedAt ?? job.queuedAt, job.endedAt);
  return length === null ? "" : ` in ${formatDuration(length)}`;
}

/** The duration of the last run. */
function runDuration(job: JobState): string {
  const length = elapsed(job.startedAt, job.endedAt);
  return length === null ? "" : ` after ${formatDuration(length)}`;
}

/** The last known percentage. */
function lastPercentage({ percentage }: JobState): string {
  return percentage === null ? "" : `, at ${formatPercent(percentage)}`;
}
