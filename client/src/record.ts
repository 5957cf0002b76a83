/** A job's record: the sum of its events. Pure functions, without connection or clock. */

import { AppendOnlyWindow } from "./appendOnlyWindow.js";
import { infoOf, infoOfNewRun, type JobInfo, mergeInfo, NO_INFO } from "./info.js";
import {
  isCancelReason,
  isTerminal,
  type JobChange,
  type JobComplete,
  type JobError,
  type JobEvent,
  type JobGap,
  type JobInfoUpdate,
  type JobLog,
  type JobProgress,
  type JobStatus,
  type JoinedMessage,
  type Level,
  type Reason,
  STATES,
  type State,
} from "./protocol.js";

/** The number of status changes to keep per job. */
export const HISTORY_LIMIT = 200;

/** A log line of a job. */
export interface LogLine {
  readonly seq: number;
  readonly timestamp: string;
  readonly level: Level;
  readonly message: string;
  /** The attempt that logged the line, if it arrived after that attempt had ended. */
  readonly attempt?: number;
}

/** A change of a job's status. */
export interface StatusChange {
  readonly seq: number;
  readonly timestamp: string;
  readonly status: State;
  readonly task: string | null;
  /** The attempt that started or, with `retrying`, the next one. */
  readonly attempt: number | null;
  readonly run: number | null;
  /** The time of the retry: RFC 3339, UTC. */
  readonly retryAt: string | null;
  /** The class name of the exception that caused the retry or the error. */
  readonly error: string | null;
  readonly message: string | null;
  /** Why the job ended, if `status` is `error` or `cancelled`. */
  readonly reason: Reason | null;
  /** The subject who cancelled the job, if it is known. */
  readonly by: string | null;
}

/** A scheduled retry. */
export interface Retry {
  /** The number of the next attempt. */
  readonly attempt: number;
  /** The time of the next attempt: RFC 3339, UTC. */
  readonly retryAt: string | null;
  readonly error: string | null;
  readonly message: string | null;
}

/** The error that a job ended with. */
export interface Failure {
  /** The class name of the exception. */
  readonly error: string;
  readonly message: string;
  readonly reason: Reason;
}

/** The request that a job be cancelled, or the end of a job that was cancelled. */
export interface Cancellation {
  /** The subject who cancelled the job; null if it is not known. */
  readonly by: string | null;
  /** A text for people. */
  readonly message: string | null;
  /** Why the job ended: `cancelled` or `revoked`; null until it has ended. */
  readonly reason: Reason | null;
}

/**
 * A part of a job's history that the server no longer stores: log lines with `after < seq < before`
 * are missing.
 */
export interface Gap {
  /** The `seq` of the last event before the gap; 0 if the gap starts at the beginning. */
  readonly after: number;
  /** The `seq` from which the history is complete. */
  readonly before: number;
}

/** The state of a job according to the events received so far. */
export interface JobRecord {
  readonly status: State;
  /** The `seq` up to which `status` is confirmed. */
  readonly statusSeq: number;
  readonly info: JobInfo;
  /** The `seq` up to which `info` is confirmed: earlier events do not change it. */
  readonly infoSeq: number;
  readonly attempt: number;
  readonly run: number | null;
  readonly progress: JobProgress | null;
  readonly infoUpdate: JobInfoUpdate | null;
  readonly retry: Retry | null;
  readonly logs: AppendOnlyWindow<JobLog>;
  readonly changes: AppendOnlyWindow<JobChange>;
  readonly history: AppendOnlyWindow<StatusChange>;
  readonly gaps: readonly JobGap[];
  readonly result: unknown;
  readonly error: Failure | null;
  readonly cancellation: Cancellation | null;
  readonly queuedAt: string | null;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  readonly updatedAt: string | null;
}

export function emptyRecord(): JobRecord {
  return {
    status: "pending",
    statusSeq: 0,
    info: NO_INFO,
    infoSeq: 0,
    attempt: 1,
    run: null,
    progress: null,
    infoUpdate: null,
    retry: null,
    logs: new AppendOnlyWindow(),
    changes: new AppendOnlyWindow(),
    history: new AppendOnlyWindow(),
    gaps: [],
    result: null,
    error: null,
    cancellation: null,
    queuedAt: null,
    startedAt: null,
    endedAt: null,
    updatedAt: null,
  };
}

/** Return the record with a new event applied. */
export function applyEvent(record: JobRecord, event: JobEvent, logLimit: number): JobRecord {
  const updated = { ...record, updatedAt: event.timestamp };
  switch (event.type) {
    case "job_info":
      return { ...describe(updated, event), infoUpdate: event };
    case "job_progress":
      return { ...updated, progress: event };
    case "job_log":
      return { ...updated, logs: record.logs.add(event, logLimit) };
    case "job_status":
      return applyStatusEvent(updated, event);
    default:
      return applyEnd(updated, event);
  }
}

/** Return the record with the status that the server reported for `seq`. */
export function applyStatus(record: JobRecord, status: State, seq: number): JobRecord {
  const isKnown = record.statusSeq > seq || record.status === status;
  // The terminal event decides how a job has ended; an unknown status cannot confirm it.
  const hasEnded = isTerminal(status) || !STATES.includes(status);
  const isUnclear = record.endedAt !== null && hasEnded;
  return isKnown || isUnclear ? record : { ...record, status, statusSeq: seq };
}

/** Return the record with the description that the server reported with a `joined`. */
export function applyJoinedInfo(record: JobRecord, joined: JoinedMessage): JobRecord {
  return { ...record, info: infoOf(joined), infoSeq: joined.seq };
}

/** Return the record with a gap. A gap that overlaps the previous one extends it. */
export function addGap(record: JobRecord, gap: JobGap): JobRecord {
  const last = record.gaps.at(-1);
  if (last === undefined || last.before <= gap.after) {
    return { ...record, gaps: [...record.gaps, gap].slice(-HISTORY_LIMIT) };
  }
  if (gap.before <= last.before) {
    return record;
  }
  const extended = { ...gap, after: Math.min(last.after, gap.after) };
  return { ...record, gaps: [...record.gaps.slice(0, -1), extended] };
}

/** Return the kept events in order, for a follower that starts late. */
export function eventsToReplay(record: JobRecord): (JobEvent | JobGap)[] {
  const { logs, changes, gaps, progress, infoUpdate } = record;
  const known = [...logs.items, ...changes.items, ...gaps, progress, infoUpdate];
  return known.filter((event) => event !== null).sort((one, other) => place(one) - place(other));
}

/** Return the position of an event. A gap precedes the first event after it. */
function place(event: JobEvent | JobGap): number {
  return event.type === "job_gap" ? event.before - 0.5 : event.seq;
}

function applyStatusEvent(record: JobRecord, event: JobStatus): JobRecord {
  const { status, timestamp } = event;
  const begins = status === "queued" || status === "started";
  const isNewRun = begins && record.endedAt !== null;
  const changed = {
    ...recordChange(describe(record, event, isNewRun), event),
    ...NOT_ENDED,
    cancellation: record.endedAt === null ? record.cancellation : null,
    ...(isNewRun ? { infoUpdate: null } : {}),
  };
  switch (status) {
    case "queued":
      return { ...changed, ...NEW_RUN, queuedAt: timestamp, startedAt: null };
    case "started": {
      const run = event.run ?? null;
      // A stalled run has resumed: keep its progress and start time.
      if (run !== null && run === record.run && record.endedAt === null) {
        return { ...changed, startedAt: record.startedAt ?? timestamp };
      }
      return { ...changed, ...NEW_RUN, run, startedAt: timestamp };
    }
    case "retrying":
      return addRetry(changed, record.attempt, event);
    case "cancelling": {
      const { by = null, message = null } = event;
      return { ...changed, cancellation: { by, message, reason: null } };
    }
    default:
      return changed;
  }
}

function describe(
  record: JobRecord,
  event: JobStatus | JobInfoUpdate,
  isNewRun = false,
): JobRecord {
  if (event.seq <= record.infoSeq) {
    return record;
  }
  const info = isNewRun ? infoOfNewRun(record.info) : record.info;
  return { ...record, info: mergeInfo(info, event) };
}

function applyEnd(record: JobRecord, event: JobComplete | JobError): JobRecord {
  const changed = { ...recordChange(record, event), endedAt: event.timestamp };
  if (event.type === "job_complete") {
    return { ...changed, ...NO_OUTCOME, result: event.result };
  }
  const { error, message, reason, by = null } = event;
  return isCancelReason(reason)
    ? { ...changed, ...NO_OUTCOME, cancellation: { by, message, reason } }
    : { ...changed, ...NO_OUTCOME, error: { error, message, reason } };
}

/** The fields that the end of a job sets. */
const NO_OUTCOME = { result: null, error: null, cancellation: null } as const;
/** The fields that a status resets: a job with a status has not ended. */
const NOT_ENDED = { result: null, error: null, endedAt: null } as const;
/** The fields that a new run resets. Logs stay. */
const NEW_RUN = { ...NOT_ENDED, ...NO_OUTCOME, progress: null } as const;

function recordChange(record: JobRecord, event: JobChange): JobRecord {
  const change = toStatusChange(event);
  return {
    ...record,
    status: change.status,
    statusSeq: event.seq,
    attempt: change.attempt ?? record.attempt,
    retry: null,
    changes: record.changes.add(event, HISTORY_LIMIT),
    history: record.history.add(change, HISTORY_LIMIT),
  };
}

/** The event carries the next attempt; the record keeps the current one. */
function addRetry(record: JobRecord, currentAttempt: number, event: JobStatus): JobRecord {
  const attempt = event.attempt ?? currentAttempt + 1;
  const { retry_at: retryAt = null, error = null, message = null } = event;
  const retry = { attempt, retryAt, error, message };
  return { ...record, attempt: Math.max(1, attempt - 1), retry };
}

function toStatusChange(event: JobChange): StatusChange {
  const { seq, timestamp } = event;
  const change = {
    seq,
    timestamp,
    task: null,
    attempt: null,
    run: null,
    retryAt: null,
    error: null,
    message: null,
    reason: null,
    by: null,
  };
  switch (event.type) {
    case "job_complete":
      return { ...change, status: "complete" };
    case "job_error":
      return {
        ...change,
        status: isCancelReason(event.reason) ? "cancelled" : "error",
        error: event.error,
        message: event.message,
        reason: event.reason,
        by: event.by ?? null,
      };
    default:
      return {
        ...change,
        status: event.status,
        task: event.task ?? null,
        attempt: event.attempt ?? null,
        run: event.run ?? null,
        retryAt: event.retry_at ?? null,
        error: event.error ?? null,
        message: event.message ?? null,
        by: event.by ?? null,
      };
  }
}
