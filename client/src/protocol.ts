/** The messages of protocol version 1. `protocol/events.schema.json` is the specification. */

/**
 * A value of an open list: a known one, or any other string of 1 to 64 characters that a later server
 * sends. Show an unknown value as it is. Editors complete the known values.
 */
export type Open<Known extends string> = Known | (string & {});

/** The status that a `job_status` event carries. A job with an unknown status has not ended. */
export type RunStatus = Open<"queued" | "started" | "retrying" | "stalled" | "cancelling">;
/**
 * The status of a job. `pending`: no event of it is known; `complete`, `error` and `cancelled` are
 * terminal.
 */
export type State = Open<"pending" | "complete" | "error" | "cancelled"> | RunStatus;
/** The level of a log line. */
export type Level = Open<"debug" | "info" | "warning" | "error" | "critical">;
/** Why a job ended with an error. The job has ended, whatever the reason is. */
export type Reason = Open<
  "failure" | "revoked" | "time_limit" | "worker_lost" | "expired" | "rejected" | "cancelled"
>;
/** What a request to cancel a job led to. */
export type Outcome = Open<"cancelled" | "requested" | "already_ended">;

export const RUN_STATUSES: readonly RunStatus[] = [
  "queued",
  "started",
  "retrying",
  "stalled",
  "cancelling",
];
export const STATES: readonly State[] = [
  "pending",
  ...RUN_STATUSES,
  "complete",
  "error",
  "cancelled",
];
/** The known levels, in ascending order of severity. */
export const LEVELS: readonly Level[] = ["debug", "info", "warning", "error", "critical"];
export const REASONS: readonly Reason[] = [
  "failure",
  "revoked",
  "time_limit",
  "worker_lost",
  "expired",
  "rejected",
  "cancelled",
];

/** A position in a job's events: the client has seen everything up to `seq` of record `epoch`. */
export interface Cursor {
  epoch: string;
  seq: number;
}

interface EventFields {
  job_id: string;
  /** The position of the event in its record. It starts at 1 and increases, with gaps. */
  seq: number;
  /** The time of the event: RFC 3339, UTC. */
  timestamp: string;
}

/** The description of a job, as far as the sender of the message knows it. */
export interface InfoFields {
  /** The name of the Celery task. */
  task?: string;
  /** What the job is, for people. */
  title?: string;
  tags?: string[];
  /** The queue that the job was sent to. */
  queue?: string;
  /** The worker that runs the job. */
  worker?: string;
  /** The id of the job that sent this one. */
  parent?: string;
  /** When the job was sent: RFC 3339, UTC. */
  created_at?: string;
  /** Whether a request can cancel the job. Default: true. */
  cancellable?: boolean;
  /** Whether a cancelled run is terminated if it does not end by itself. Default: false. */
  terminates?: boolean;
}

export interface JobStatusMessage extends EventFields, InfoFields {
  status: RunStatus;
  attempt?: number;
  run?: number;
  retry_at?: string;
  error?: string;
  message?: string;
  /** The subject who cancels the job, with `cancelling`. */
  by?: string;
}

/** Another title or further tags of a running job. */
export interface JobInfoMessage extends EventFields, Pick<InfoFields, "title" | "tags"> {}

export interface JobProgressMessage extends EventFields {
  percentage: number | null;
  message?: string;
  current?: number;
  total?: number;
  stage?: string;
  rate?: number;
  eta?: number;
}

export interface JobLogMessage extends EventFields {
  level: Level;
  message: string;
  /** The attempt that logged the line. Only late lines carry it. */
  attempt?: number;
}

export interface JobCompleteMessage extends EventFields {
  result: unknown;
}

export interface JobErrorMessage extends EventFields {
  error: string;
  message: string;
  reason: Reason;
  /** The subject who cancelled the job. */
  by?: string;
}

/** Cancel a job. */
export interface CancelJobRequest {
  job_id: string;
  /** A text for people, at most 1,000 characters. */
  message?: string;
}

export interface CancelAccepted {
  ok: true;
  job_id: string;
  outcome: Outcome;
  /** With `requested`: whether the run is terminated if it does not end by itself. */
  terminates?: boolean;
}

/** The first message of a connection: the server, and the requests that it answers. */
export interface HelloMessage {
  protocol: number;
  server: string;
  features: string[];
}

/** The record of a joined job. */
export interface RecordFields extends Cursor {
  job_id: string;
  status: State;
}

export interface JoinedMessage extends RecordFields, InfoFields {
  /** The subject that owns the job. */
  owner?: string;
  /** The `seq` from which the history is complete. It is missing if nothing was trimmed. */
  complete_from?: number;
}

/** The server no longer stores the history between two events. */
export interface JobGapMessage {
  job_id: string;
  /** The `seq` up to which the client has each event. */
  after: number;
  /** The `seq` from which the client gets each event. */
  before: number;
}

/** The server ended a join: the client may no longer follow the job. */
export interface LeftMessage {
  job_id: string;
  code: string;
  message: string;
}

/** A job as feeds show it: no log lines and no result. */
export interface JobSummaryMessage extends RecordFields, InfoFields {
  created_at: string;
  owner?: string;
  /** When the latest attempt started. */
  started_at?: string;
  ended_at?: string;
  attempt?: number;
  percentage?: number | null;
  message?: string;
  reason?: Reason;
}

/** Jobs of a feed, the newest first. A long list has several messages. */
export interface FeedSnapshotMessage {
  feed: string;
  jobs: JobSummaryMessage[];
  /** Whether the client clears its list first. */
  reset?: boolean;
  /** Whether this is the last message of the snapshot. */
  last?: boolean;
  /** The `after` of the request for older jobs. The last message has it if there are any. */
  cursor?: string;
}

/** A job of a feed is new or has changed. */
export interface FeedJobMessage extends JobSummaryMessage {
  feed: string;
}

/** A job left a feed, or no longer matches the filter of the join. */
export interface FeedGoneMessage {
  feed: string;
  job_id: string;
}

/** The server ended the join of a feed: the client may no longer list its jobs. */
export interface FeedLeftMessage {
  feed: string;
  code: string;
  message: string;
}

/** Which jobs of a feed a client requests. A job has to match every field. */
export interface FeedFilterFields {
  /** States, `running` (begun and not ended) or `failed` (`error`). */
  status?: string[];
  tag?: string;
  task?: string;
  owner?: string;
  /** Jobs that were created then or later. */
  since?: string;
}

export interface JoinFeedRequest {
  feed: string;
  filter?: FeedFilterFields;
  limit?: number;
  /** The cursor of a snapshot: the server sends older jobs, with the filter of the join. */
  after?: string;
}

export interface Refusal {
  ok: false;
  code: string;
  message: string;
  /** Seconds after which the client may send the same request again. */
  retry_after?: number;
}

/** All messages by name. `x.ack` is the acknowledgement of `x`. */
export interface Messages {
  job_status: JobStatusMessage;
  job_info: JobInfoMessage;
  job_progress: JobProgressMessage;
  job_log: JobLogMessage;
  job_complete: JobCompleteMessage;
  job_error: JobErrorMessage;
  hello: HelloMessage;
  joined: JoinedMessage;
  job_gap: JobGapMessage;
  left: LeftMessage;
  feed_snapshot: FeedSnapshotMessage;
  feed_job: FeedJobMessage;
  feed_gone: FeedGoneMessage;
  feed_left: FeedLeftMessage;
  token_expiring: { expires_at: string };
  closing: { code: string; message: string };
  draining: { closes_in: number };
  connect: { token: string };
  connect_error: { message: string; data: { code: string; message?: string } };
  join_job: { job_id: string; after?: Cursor };
  "join_job.ack": (RecordFields & { ok: true; recovered: boolean }) | Refusal;
  leave_job: { job_id: string };
  "leave_job.ack": { ok: true; job_id: string } | Refusal;
  cancel_job: CancelJobRequest;
  "cancel_job.ack": CancelAccepted | Refusal;
  join_feed: JoinFeedRequest;
  "join_feed.ack": { ok: true; feed: string; total: number } | Refusal;
  leave_feed: { feed: string };
  "leave_feed.ack": { ok: true; feed: string } | Refusal;
  refresh_token: { token: string };
  "refresh_token.ack": { ok: true; expires_at: string } | Refusal;
}

export const JOB_EVENTS = [
  "job_status",
  "job_info",
  "job_progress",
  "job_log",
  "job_complete",
  "job_error",
] as const;

export type JobEventName = (typeof JOB_EVENTS)[number];

type TypedEvent<N extends JobEventName | "job_gap"> = { readonly type: N } & Readonly<Messages[N]>;

export type JobStatus = TypedEvent<"job_status">;
export type JobInfoUpdate = TypedEvent<"job_info">;
export type JobProgress = TypedEvent<"job_progress">;
export type JobLog = TypedEvent<"job_log">;
export type JobComplete = TypedEvent<"job_complete">;
export type JobError = TypedEvent<"job_error">;

/** An event of a job: the message as received, with its name as `type`. */
export type JobEvent = JobStatus | JobInfoUpdate | JobProgress | JobLog | JobComplete | JobError;

/** Trimmed history, in the place of the missing events. It is no job event: it has no `seq`. */
export type JobGap = TypedEvent<"job_gap">;

/** An event that changes the status of a job. */
export type JobChange = JobStatus | JobComplete | JobError;

/** Return whether a job with this status has ended. A job with an unknown status has not. */
export function isTerminal(status: State): status is "complete" | "error" | "cancelled" {
  return status === "complete" || status === "error" || status === "cancelled";
}

/** Return whether a value is a valid job id: 1 to 128 letters, digits or `_ . : @ = + / ~ -`. */
export function isJobId(value: unknown): value is string {
  return typeof value === "string" && /^[\w.:@=+/~-]{1,128}$/.test(value);
}

/** Return whether a job that ends for this reason is cancelled: it has not failed. */
export function isCancelReason(reason: Reason): boolean {
  return reason === "cancelled" || reason === "revoked";
}

const FEED = /^(?:mine|all|owner:[\s\S]{1,256}|tag:\P{Cc}{1,128})$/u;

/** Return whether a value is the name of a feed: `mine`, `all`, `owner:<subject>` or `tag:<tag>`. */
export function isFeed(value: unknown): value is string {
  return typeof value === "string" && FEED.test(value);
}
