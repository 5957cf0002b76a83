/** Jobs as feeds show them: their values, which of two is newer, and their order. */

import type { JobInfo } from "./info.js";
import type { JobSummaryMessage, Reason, State } from "./protocol.js";

/** A job in a feed: no log lines and no result. Times are strings in RFC 3339, UTC. */
export interface JobSummary extends JobInfo {
  readonly jobId: string;
  /** The job's record, and the position of its latest event. */
  readonly epoch: string;
  readonly seq: number;
  readonly status: State;
  readonly createdAt: string;
  /** When the latest attempt started. */
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  /** The number of the current or last attempt, from 1. */
  readonly attempt: number;
  /** 0 to 100, or null if unknown. */
  readonly percentage: number | null;
  /** The message of the latest progress, retry or failure. */
  readonly message: string | null;
  /** Why the job failed or was cancelled. */
  readonly reason: Reason | null;
}

export function toSummary(message: JobSummaryMessage): JobSummary {
  return {
    jobId: message.job_id,
    epoch: message.epoch,
    seq: message.seq,
    status: message.status,
    task: message.task ?? null,
    title: message.title ?? null,
    tags: message.tags ?? [],
    queue: message.queue ?? null,
    worker: message.worker ?? null,
    parent: message.parent ?? null,
    owner: message.owner ?? null,
    cancellable: message.cancellable ?? true,
    terminates: message.terminates ?? false,
    createdAt: message.created_at,
    startedAt: message.started_at ?? null,
    endedAt: message.ended_at ?? null,
    attempt: message.attempt ?? 1,
    percentage: message.percentage ?? null,
    message: message.message ?? null,
    reason: message.reason ?? null,
  };
}

/**
 * Return the newer one of two summaries of a job, and the known one if they are equal. A later record
 * has a greater epoch; positions are comparable within one record only.
 */
export function newerSummary(known: JobSummary | undefined, received: JobSummary): JobSummary {
  if (!known || known.epoch < received.epoch) {
    return received;
  }
  const isOlder = received.epoch < known.epoch || received.seq < known.seq;
  return isOlder || isEqual(known, received) ? known : received;
}

/**
 * Return the summary of a job to show after the server has read the feed again. Another record is
 * what the server has now, whatever its epoch is.
 */
export function rereadSummary(shown: JobSummary | undefined, received: JobSummary): JobSummary {
  return shown?.epoch === received.epoch ? newerSummary(shown, received) : received;
}

/** Compare two jobs by the order of feeds: the newest first, then by id. */
export function compareSummaries(one: JobSummary, other: JobSummary): number {
  return compareTimes(other.createdAt, one.createdAt) || compareTexts(one.jobId, other.jobId);
}

/** Compare two times in RFC 3339, UTC, whose fractions of a second may differ in length. */
export function compareTimes(one: string, other: string): number {
  return one.length === other.length
    ? compareTexts(one, other)
    : compareTexts(withoutZone(one), withoutZone(other));
}

function withoutZone(time: string): string {
  return time.replace(/(?:\.0*|(\.\d*?)0*)?(?:Z|\+00:00)$/, "$1");
}

function compareTexts(one: string, other: string): number {
  return one === other ? 0 : one < other ? -1 : 1;
}

function isEqual(one: JobSummary, other: JobSummary): boolean {
  const fields = Object.keys(one) as (keyof JobSummary)[];
  return fields.every((field) =>
    field === "tags" ? isSameList(one.tags, other.tags) : one[field] === other[field],
  );
}

/** Return whether two lists have the same items. */
export function isSameList<T>(one: readonly T[], other: readonly T[]): boolean {
  return one.length === other.length && one.every((item, index) => item === other[index]);
}
