/** The answer to "where is my job?" in one sentence. */

import type { JobState } from "@jobcast/client";
import { about, between, clock, span } from "./durations";
import { faceOf, isUnknown } from "./face";
import { percent } from "./numbers";
import { reasonWords } from "./reasons";

export interface Headline {
  readonly sentence: string;
  /** What else there is to know of the state; null where there is nothing. */
  readonly hint: string | null;
  /** What one may do about it. */
  readonly advice?: string;
}

const LONG = 100; // characters, after which a message comes last: lines may be cut there
const SLOW_QUEUE = 10_000; // ms in the queue, after which it is worth a word

/** @param now in ms, by the server's clock. */
export function headlineOf(job: JobState, now: number): Headline {
  if (job.joined === "refused") {
    return refused(job);
  }
  switch (job.status) {
    case "pending":
      return isUnknown(job)
        ? { sentence: "Loading…", hint: null }
        : {
            sentence: "Nothing was heard of this job yet",
            hint: "It shows up here with its first word.",
          };
    case "queued":
      return queued(job, now);
    case "started":
      return { sentence: running(job, now), hint: null };
    case "retrying":
      return retrying(job, now);
    case "stalled":
      return {
        sentence: "Stalled: its worker is not heard of any more",
        hint: "Waiting whether it comes back, or another worker takes the job over.",
      };
    case "complete":
      return {
        sentence: `Done${took(job)}${job.attempt > 1 ? `, on attempt ${job.attempt}` : ""}`,
        hint: null,
      };
    case "error":
      return failed(job);
  }
}

/** Seconds left by now, or null. */
export function leftOf(job: JobState, now: number): number | null {
  if (job.eta === null || job.updatedAt === null || job.status !== "started") {
    return null;
  }
  return Math.max(0, job.eta - Math.max(0, now - Date.parse(job.updatedAt)) / 1000);
}

/** What it is doing, as the task says it. */
export function doing(job: JobState): string | null {
  return job.message || job.stage || null;
}

/** `LedgerError: line 4: ...`, without a class that the message names already. */
export function errorText(error: string | null, message: string | null): string | null {
  if (!error || !message) {
    return error || message || null;
  }
  return message.startsWith(error) ? message : `${error}: ${message}`;
}

function running(job: JobState, now: number): string {
  const left = leftOf(job, now);
  const words = doing(job);
  const numbers = [
    job.percentage === null ? null : percent(job.percentage),
    left === null ? null : `${about(left)} left`,
  ].filter((part) => part !== null);
  if (words !== null && words.length > LONG) {
    return `${["Running", ...numbers].join(", ")}: ${words}`;
  }
  const parts = words === null ? numbers : [words, ...numbers];
  return parts.length > 0 ? `Running: ${parts.join(", ")}` : "Running";
}

function queued(job: JobState, now: number): Headline {
  const waiting = job.queuedAt === null ? 0 : now - Date.parse(job.queuedAt);
  return {
    sentence: waiting < 1000 ? "Queued" : `Queued for ${clock(waiting)}`,
    hint:
      waiting < SLOW_QUEUE
        ? "Waiting for a worker."
        : "No worker has taken it yet: they are busy, or none is running.",
  };
}

function retrying(job: JobState, now: number): Headline {
  const retry = job.retry;
  if (!retry) {
    return { sentence: "Retrying", hint: null };
  }
  const wait = retry.eta === null ? 0 : Date.parse(retry.eta) - now;
  const due = wait > 0 ? `is due in ${Math.ceil(wait / 1000)} s` : "is due now";
  const why = errorText(retry.error, retry.message);
  return {
    sentence: `Retrying: attempt ${retry.attempt} ${due}`,
    hint: why ? `The last attempt ended with ${why}` : null,
  };
}

function failed(job: JobState): Headline {
  const reason = job.error?.reason ?? "failure";
  const { verb, why, advice } = reasonWords(reason);
  return {
    sentence: `${verb}${neverBegan(job) ? " before it started" : `${ran(job)}${reached(job)}`}`,
    hint: why,
    advice,
  };
}

function refused(job: JobState): Headline {
  switch (job.refusal?.code) {
    case "job_not_found":
      return {
        sentence: "There is no such job for you",
        hint: "It does not exist, is not kept any more, or belongs to somebody else. Which of these it is, nobody is told.",
      };
    case "invalid_request":
      return {
        sentence: "This cannot be the id of a job",
        hint: "An id has 1 to 128 letters, digits or _ . : @ = + / ~ -",
      };
    case "too_many_jobs":
      return {
        sentence: "Too many jobs are followed at once",
        hint: "Remove others from the list, then try again.",
      };
    default:
      return { sentence: `${faceOf(job).word}`, hint: job.refusal?.message ?? null };
  }
}

/** Not for want of its beginning: what is not kept any more may have said that it started. */
function neverBegan({
  startedAt,
  queuedAt,
  gaps,
  logs,
  run,
  percentage,
  message,
}: JobState): boolean {
  const isWhole = queuedAt !== null && gaps.length === 0;
  const isSilent = logs.length === 0 && run === null && percentage === null && message === null;
  return startedAt === null && (isWhole || isSilent);
}

/** How long a job took that is done; from the beginning if nobody said that it started. */
function took(job: JobState): string {
  const length = between(job.startedAt ?? job.queuedAt, job.endedAt);
  return length === null ? "" : ` in ${span(length)}`;
}

/** How long the last run was. */
function ran(job: JobState): string {
  const length = between(job.startedAt, job.endedAt);
  return length === null ? "" : ` after ${span(length)}`;
}

/** How far it came before it ended. */
function reached({ percentage }: JobState): string {
  return percentage === null ? "" : `, at ${percent(percentage)}`;
}
