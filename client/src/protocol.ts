/** The messages of protocol version 1, as `protocol/events.schema.json` describes them. */

export type RunStatus = "queued" | "started" | "retrying" | "stalled";
export type State = "pending" | RunStatus | "complete" | "error";
export type Level = "debug" | "info" | "warning" | "error" | "critical";
export type Reason = "failure" | "revoked" | "time_limit" | "worker_lost" | "expired" | "rejected";

export const RUN_STATUSES: readonly RunStatus[] = ["queued", "started", "retrying", "stalled"];
export const STATES: readonly State[] = ["pending", ...RUN_STATUSES, "complete", "error"];
export const LEVELS: readonly Level[] = ["debug", "info", "warning", "error", "critical"];
export const REASONS: readonly Reason[] = [
  "failure",
  "revoked",
  "time_limit",
  "worker_lost",
  "expired",
  "rejected",
];

/** Where a client is in a job's events: everything up to `seq` of the record `epoch` was seen. */
export interface Cursor {
  epoch: string;
  seq: number;
}

interface Stamped {
  job_id: string;
  /** The place of the event in its record: increasing, from 1, with gaps. */
  seq: number;
  /** When it happened: RFC 3339, UTC. */
  timestamp: string;
}

export interface JobStatusMessage extends Stamped {
  status: RunStatus;
  task?: string;
  attempt?: number;
  run?: number;
  eta?: string;
  error?: string;
  message?: string;
}

export interface JobProgressMessage extends Stamped {
  percentage: number | null;
  message: string | null;
  current?: number;
  total?: number;
  stage?: string;
  rate?: number;
  eta?: number;
}

export interface JobLogMessage extends Stamped {
  level: Level;
  message: string;
  /** Only with a late line: the try of the task that logged it. */
  attempt?: number;
}

export interface JobCompleteMessage extends Stamped {
  result: unknown;
}

export interface JobErrorMessage extends Stamped {
  error: string;
  message: string;
  reason: Reason;
}

export interface JoinedMessage extends Cursor {
  job_id: string;
  status: State;
}

/** A joined job may not be followed any more. */
export interface LeftMessage {
  job_id: string;
  code: string;
  message: string;
}

export interface Refusal {
  ok: false;
  code: string;
  message: string;
  /** Seconds until the same request may be sent again. */
  retry_after?: number;
}

/** Every message by its name. `x.ack` is the answer to `x`. */
export interface Messages {
  job_status: JobStatusMessage;
  job_progress: JobProgressMessage;
  job_log: JobLogMessage;
  job_complete: JobCompleteMessage;
  job_error: JobErrorMessage;
  joined: JoinedMessage;
  left: LeftMessage;
  token_expiring: { expires_at: string };
  closing: { code: string; message: string };
  draining: { closes_in: number };
  connect: { token: string };
  connect_error: { message: string; data: { code: string; message?: string } };
  join_job: { job_id: string; after?: Cursor | null };
  "join_job.ack": (JoinedMessage & { ok: true; recovered: boolean }) | Refusal;
  leave_job: { job_id: string };
  "leave_job.ack": { ok: true; job_id: string } | Refusal;
  refresh_token: { token: string };
  "refresh_token.ack": { ok: true; expires_at: string } | Refusal;
}

export const JOB_EVENTS = [
  "job_status",
  "job_progress",
  "job_log",
  "job_complete",
  "job_error",
] as const;

export type JobEventName = (typeof JOB_EVENTS)[number];

type Named<N extends JobEventName> = { readonly type: N } & Readonly<Messages[N]>;

export type JobStatus = Named<"job_status">;
export type JobProgress = Named<"job_progress">;
export type JobLog = Named<"job_log">;
export type JobComplete = Named<"job_complete">;
export type JobError = Named<"job_error">;

/** What a job says: the message as it came, with its name as `type`. */
export type JobEvent = JobStatus | JobProgress | JobLog | JobComplete | JobError;

/** An event that changes the state that a job is in. */
export type JobChange = JobStatus | JobComplete | JobError;

/** Whether a job in this state has ended. */
export function isTerminal(status: State): status is "complete" | "error" {
  return status === "complete" || status === "error";
}

/** Whether a text can be a job's id. */
export function isJobId(value: unknown): value is string {
  return typeof value === "string" && /^[\w.:@=+/~-]{1,128}$/.test(value);
}
