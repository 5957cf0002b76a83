/** What a job's events add up to. Pure: no connection, no time. */

import type {
  JobChange,
  JobComplete,
  JobError,
  JobEvent,
  JobLog,
  JobProgress,
  JobStatus,
  Level,
  Reason,
  State,
} from "./protocol.js";
import { Tail } from "./tail.js";

/** Status changes that are kept of a job. */
export const HISTORY_LIMIT = 200;

export interface LogLine {
  readonly seq: number;
  readonly timestamp: string;
  readonly level: Level;
  readonly message: string;
  /** Of a line that comes late, after its run was followed by another or has ended. */
  readonly attempt?: number;
}

/** One step of a job's way, for attempts and timelines. */
export interface StatusChange {
  readonly seq: number;
  readonly timestamp: string;
  readonly status: State;
  readonly task: string | null;
  /** With `retrying`, the attempt that is due. */
  readonly attempt: number | null;
  readonly run: number | null;
  /** When the retry is due. */
  readonly eta: string | null;
  /** The class name of the exception behind a retry, or behind the end. */
  readonly error: string | null;
  readonly message: string | null;
  /** How the job ended, with `error`. */
  readonly reason: Reason | null;
}

export interface Retry {
  /** Which attempt is due. */
  readonly attempt: number;
  /** When it is due: RFC 3339, UTC. */
  readonly eta: string | null;
  readonly error: string | null;
  readonly message: string | null;
}

export interface Failure {
  /** The class name of the exception. */
  readonly error: string;
  readonly message: string;
  readonly reason: Reason;
}

/** Everything that is known of a job. */
export interface JobRecord {
  readonly status: State;
  /** The `seq` up to which `status` is known to be true. */
  readonly statusSeq: number;
  readonly task: string | null;
  readonly attempt: number;
  readonly run: number | null;
  readonly progress: JobProgress | null;
  readonly retry: Retry | null;
  readonly logs: Tail<JobLog>;
  readonly changes: Tail<JobChange>;
  readonly history: Tail<StatusChange>;
  /** Each the `seq` after which something may be missing. */
  readonly gaps: readonly number[];
  readonly result: unknown;
  readonly error: Failure | null;
  readonly queuedAt: string | null;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  readonly updatedAt: string | null;
}

export function emptyRecord(): JobRecord {
  return {
    status: "pending",
    statusSeq: 0,
    task: null,
    attempt: 1,
    run: null,
    progress: null,
    retry: null,
    logs: new Tail(),
    changes: new Tail(),
    history: new Tail(),
    gaps: [],
    result: null,
    error: null,
    queuedAt: null,
    startedAt: null,
    endedAt: null,
    updatedAt: null,
  };
}

/** The record after an event that was not seen before. */
export function see(record: JobRecord, event: JobEvent, logLimit: number): JobRecord {
  const seen = { ...record, updatedAt: event.timestamp };
  switch (event.type) {
    case "job_progress":
      return { ...seen, progress: event };
    case "job_log":
      return { ...seen, logs: record.logs.add(event, logLimit) };
    case "job_status":
      return enter(seen, event);
    default:
      return end(seen, event);
  }
}

/** The record when the server says in which state the job was at `seq`. */
export function settle(record: JobRecord, status: State, seq: number): JobRecord {
  const known = record.statusSeq > seq || record.status === status;
  return known ? record : { ...record, status, statusSeq: seq };
}

/** The record when something may be missing after `seq`. */
export function withGap(record: JobRecord, seq: number): JobRecord {
  return { ...record, gaps: [...record.gaps, seq].slice(-HISTORY_LIMIT) };
}

/** What a newcomer is told of a job that is known already, in order. */
export function knownEvents(record: JobRecord): JobEvent[] {
  const known: JobEvent[] = [...record.logs.items, ...record.changes.items];
  if (record.progress) {
    known.push(record.progress);
  }
  return known.sort((one, other) => one.seq - other.seq);
}

function enter(record: JobRecord, event: JobStatus): JobRecord {
  const { status, timestamp } = event;
  const known = noted(record, event);
  switch (status) {
    case "queued":
      return { ...known, ...FRESH, queuedAt: timestamp, startedAt: null };
    case "started": {
      const run = event.run ?? null;
      // The run that is known is heard of again: nothing is begun anew.
      if (run !== null && run === record.run && record.endedAt === null) {
        return { ...known, startedAt: record.startedAt ?? timestamp };
      }
      return { ...known, ...FRESH, run, startedAt: timestamp };
    }
    case "retrying":
      return withRetry(known, record.attempt, event);
    default:
      return known;
  }
}

function end(record: JobRecord, event: JobComplete | JobError): JobRecord {
  const known = { ...noted(record, event), endedAt: event.timestamp };
  if (event.type === "job_complete") {
    return { ...known, result: event.result, error: null };
  }
  const { error, message, reason } = event;
  return { ...known, result: null, error: { error, message, reason } };
}

/** What a run of its own begins with. The logs stay. */
const FRESH = { progress: null, result: null, error: null, endedAt: null } as const;

function noted(record: JobRecord, event: JobChange): JobRecord {
  const change = changeOf(event);
  return {
    ...record,
    status: change.status,
    statusSeq: event.seq,
    task: change.task ?? record.task,
    attempt: change.attempt ?? record.attempt,
    retry: null,
    changes: record.changes.add(event, HISTORY_LIMIT),
    history: record.history.add(change, HISTORY_LIMIT),
  };
}

/** The event names the attempt that is due; the record keeps the one that was made. */
function withRetry(record: JobRecord, made: number, event: JobStatus): JobRecord {
  const attempt = event.attempt ?? made + 1;
  const { eta = null, error = null, message = null } = event;
  return { ...record, attempt: Math.max(1, attempt - 1), retry: { attempt, eta, error, message } };
}

function changeOf(event: JobChange): StatusChange {
  const { seq, timestamp } = event;
  const change = {
    seq,
    timestamp,
    task: null,
    attempt: null,
    run: null,
    eta: null,
    error: null,
    message: null,
    reason: null,
  };
  switch (event.type) {
    case "job_complete":
      return { ...change, status: "complete" };
    case "job_error":
      return {
        ...change,
        status: "error",
        error: event.error,
        message: event.message,
        reason: event.reason,
      };
    default:
      return {
        ...change,
        status: event.status,
        task: event.task ?? null,
        attempt: event.attempt ?? null,
        run: event.run ?? null,
        eta: event.eta ?? null,
        error: event.error ?? null,
        message: event.message ?? null,
      };
  }
}
