/** A followed job: its record, its position in the event stream, and its followers. */

import type { ConnectionState } from "./connection.js";
import type { JobcastError } from "./errors.js";
import { JobRefused } from "./errors.js";
import type { JobInfo } from "./info.js";
import {
  type Cursor,
  isTerminal,
  type JobEvent,
  type JobGap,
  type JoinedMessage,
  type Messages,
  type State,
} from "./protocol.js";
import {
  addGap,
  applyEvent,
  applyJoinedInfo,
  applyStatus,
  type Cancellation,
  emptyRecord,
  eventsToReplay,
  type Failure,
  type Gap,
  type JobRecord,
  type LogLine,
  type Retry,
  type StatusChange,
} from "./record.js";
import { callSafely, Listeners, type Store } from "./store.js";

/** The state of a job. Times are strings in RFC 3339, UTC. */
export interface JobState extends JobInfo {
  readonly jobId: string;
  readonly status: State;
  /** Whether the client has joined the job on the server. */
  readonly joined: "no" | "joining" | "yes" | "refused";
  /** Why `joined` is `refused`: `job_not_found`, `too_many_jobs`, `invalid_request`, ... */
  readonly refusal: { readonly code: string; readonly message: string } | null;
  /** The number of the current or last attempt, from 1. */
  readonly attempt: number;
  /** The number of the current or last run, from 1. A task that is redelivered starts another run. */
  readonly run: number | null;
  /** 0 to 100, or null if unknown. */
  readonly percentage: number | null;
  readonly message: string | null;
  readonly stage: string | null;
  readonly current: number | null;
  readonly total: number | null;
  /** Items per second. */
  readonly rate: number | null;
  /** The estimated remaining time in seconds, as of `updatedAt`. */
  readonly eta: number | null;
  /** The scheduled retry while the job is `retrying`. */
  readonly retry: Retry | null;
  /** The last log lines, at most `logLimit`. */
  readonly logs: readonly LogLine[];
  /** The number of older lines that were dropped because of `logLimit`. */
  readonly droppedLogs: number;
  /** The changes of status in order, the last 200 at most. */
  readonly history: readonly StatusChange[];
  /** Where log lines are missing, in order: the server's history no longer held them. */
  readonly gaps: readonly Gap[];
  /** The public result of the task; null until the status is `complete`. */
  readonly result: unknown;
  /** The error that the job ended with; null unless the status is `error`. */
  readonly error: Failure | null;
  /** Who cancels or cancelled the job; null unless the status is `cancelling` or `cancelled`. */
  readonly cancellation: Cancellation | null;
  readonly queuedAt: string | null;
  /** When the current run started. */
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  readonly updatedAt: string | null;
  readonly connection: ConnectionState;
}

/** The state of a job, as a store. */
export type JobStore = Store<JobState>;

/** Receives a job's events as they arrive. */
export interface Follower {
  /** @param live whether the event is new, rather than replayed history. */
  onEvent(event: JobEvent | JobGap, live: boolean): void;
  /** The history was replayed completely. */
  onCaughtUp?(): void;
  /** No more events can arrive. */
  onError?(error: JobcastError): void;
}

/** The client, as a job sees it. */
export interface JobHost {
  readonly logLimit: number;
  readonly connectionState: ConnectionState;
  /** Why the connection is refused or closed; null if it is neither. */
  readonly connectionError: JobcastError | null;
  onFollow(job: Job): void;
  /** The last follower is gone. */
  onUnfollow(job: Job): void;
  onChange(job: Job): void;
}

type Joined = JobState["joined"];

export class Job implements JobStore {
  readonly jobId: string;
  readonly #host: JobHost;
  readonly #listeners = new Listeners();
  readonly #followers = new Set<Follower>();
  #record: JobRecord = emptyRecord();
  #cursor: Cursor = { epoch: "", seq: 0 };
  #joined: Joined = "no";
  #refusal: JobState["refusal"] = null;
  /** The latest join, until it is acknowledged. */
  #pendingJoin: { joined: JoinedMessage | null } | null = null;
  /** The `seq` of the cursor when the latest replay began. */
  #replayedAfter = 0;
  #acceptsEvents = false;
  #snapshot: JobState | null = null;
  /** The snapshot to show while history is replayed. */
  #frozenState: JobState | null = null;

  constructor(jobId: string, host: JobHost) {
    this.jobId = jobId;
    this.#host = host;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    return this.#addListener(() => this.#listeners.add(listener));
  };

  readonly getSnapshot = (): JobState => this.#frozenState ?? this.state;

  /** The current state, including replayed events that snapshots do not show yet. */
  get state(): JobState {
    const connection = this.#host.connectionState;
    if (this.#snapshot?.connection !== connection) {
      const joined = { joined: this.#joined, refusal: this.#refusal, connection };
      this.#snapshot = toState(this.jobId, this.#record, joined);
    }
    return this.#snapshot as JobState;
  }

  get isFollowed(): boolean {
    return this.#listeners.size + this.#followers.size > 0;
  }

  get isRefused(): boolean {
    return this.#joined === "refused";
  }

  /** Whether the latest join took effect, so that incoming events belong to it. */
  get acceptsEvents(): boolean {
    return this.#acceptsEvents;
  }

  /** The `seq` of the last known event. */
  get seq(): number {
    return this.#cursor.seq;
  }

  get refusalCode(): string | null {
    return this.#refusal?.code ?? null;
  }

  /** Add a follower. It receives the known events in a microtask, and new events from then on. */
  follow(follower: Follower): () => void {
    let isActive = true;
    let queue: (JobEvent | JobGap)[] | null = eventsToReplay(this.#record);
    const wrapped: Follower = {
      onEvent: (event, live) => (queue ? queue.push(event) : follower.onEvent(event, live)),
      onCaughtUp: () => queue ?? follower.onCaughtUp?.(),
      onError: (error) => queue ?? follower.onError?.(error),
    };
    const stop = this.#addListener(() => {
      this.#followers.add(wrapped);
      return () => this.#followers.delete(wrapped);
    });
    // The caller first needs the function that stops the follower.
    queueMicrotask(() => {
      const known = this.#host.connectionState === "closed" ? [] : (queue ?? []);
      for (const event of known) {
        if (isActive) {
          callSafely(() => follower.onEvent(event, false));
        }
      }
      queue = null;
      if (isActive) {
        this.#reportCurrentState(follower);
      }
    });
    return () => {
      isActive = false;
      stop();
    };
  }

  /** Start a join that resumes at the current position. Returns the request. */
  beginJoin(): { request: Messages["join_job"]; join: object } {
    const join = { joined: null };
    this.#pendingJoin = join;
    this.#acceptsEvents = false;
    this.#setJoined("joining");
    const after = this.#cursor.epoch === "" ? {} : { after: this.#cursor };
    return { request: { job_id: this.jobId, ...after }, join };
  }

  /** Return whether `join` is the latest one. Acknowledgements of earlier joins are obsolete. */
  isLatestJoin(join: object): boolean {
    return this.#pendingJoin === join;
  }

  /** The join took effect, or the server started a new record. */
  handleJoined(joined: JoinedMessage): void {
    if (this.#pendingJoin) {
      this.#pendingJoin.joined = joined;
      // Show the history in one step when it is complete, instead of replaying it on screen.
      this.#frozenState ??= this.state;
    }
    this.#acceptsEvents = this.#joined === "joining" || this.#joined === "yes";
    if (joined.epoch !== this.#cursor.epoch) {
      this.#cursor = { epoch: joined.epoch, seq: 0 };
      this.#record = emptyRecord();
    }
    this.#record = applyJoinedInfo(this.#record, joined);
    this.#replayedAfter = this.#cursor.seq;
    if (!this.#pendingJoin) {
      this.#record = applyStatus(this.#record, joined.status, joined.seq);
    }
    this.#invalidate();
  }

  handleEvent(event: JobEvent): void {
    if (!this.#acceptsEvents || event.seq <= this.#cursor.seq) {
      return;
    }
    this.#cursor = { ...this.#cursor, seq: event.seq };
    this.#record = applyEvent(this.#record, event, this.#host.logLimit);
    this.#deliver(event);
  }

  /** The server reported trimmed history. The part that the client has seen is not missing. */
  handleGap(gap: JobGap): void {
    const after = Math.max(gap.after, this.#replayedAfter);
    if (!this.#acceptsEvents || after + 1 >= gap.before) {
      return;
    }
    const missing = { ...gap, after };
    const record = addGap(this.#record, missing);
    if (record !== this.#record) {
      this.#record = record;
      this.#deliver(missing);
    }
  }

  /** The server acknowledged the latest join: the replay is complete. */
  handleAccepted(ack: Cursor): void {
    const joined = this.#pendingJoin?.joined;
    if (joined) {
      this.#record = applyStatus(this.#record, joined.status, joined.seq);
    }
    if (ack.epoch === this.#cursor.epoch && ack.seq > this.#cursor.seq) {
      this.#cursor = { ...this.#cursor, seq: ack.seq };
    }
    this.#pendingJoin = null;
    this.#setJoined("yes");
    for (const follower of [...this.#followers]) {
      callSafely(() => follower.onCaughtUp?.());
    }
  }

  handleRefused(code: string, message: string): void {
    this.#pendingJoin = null;
    this.#acceptsEvents = false;
    this.#setJoined("refused", { code, message });
    this.notifyError(new JobRefused(this.jobId, code, message));
  }

  /** The connection is lost, and the join with it. */
  markDisconnected(): void {
    this.#pendingJoin = null;
    this.#acceptsEvents = false;
    this.#setJoined("no");
  }

  /** Discard the record. The next follower starts from the beginning. */
  reset(): void {
    this.#record = emptyRecord();
    this.#cursor = { epoch: "", seq: 0 };
    this.markDisconnected();
  }

  notifyError(error: JobcastError): void {
    for (const follower of [...this.#followers]) {
      callSafely(() => follower.onError?.(error));
    }
  }

  /** Tell the subscribers that the snapshot has changed. */
  readonly notify = (): void => this.#listeners.notify();

  /** Remove all subscribers and followers. */
  removeListeners(): void {
    this.#listeners.clear();
    this.#followers.clear();
  }

  #deliver(event: JobEvent | JobGap): void {
    this.#invalidate();
    const live = this.#joined === "yes";
    for (const follower of [...this.#followers]) {
      callSafely(() => follower.onEvent(event, live));
    }
  }

  #addListener(add: () => () => void): () => void {
    if (this.#host.connectionState === "closed") {
      return () => {};
    }
    let remove: (() => void) | null = add();
    this.#host.onFollow(this);
    return () => {
      if (remove) {
        remove();
        remove = null;
        if (!this.isFollowed) {
          this.#host.onUnfollow(this);
        }
      }
    };
  }

  #reportCurrentState(follower: Follower): void {
    const error = this.#currentError();
    if (error) {
      callSafely(() => follower.onError?.(error));
    } else if (this.#joined === "yes") {
      callSafely(() => follower.onCaughtUp?.());
    }
  }

  #currentError(): JobcastError | null {
    const refusal = this.#refusal;
    return refusal
      ? new JobRefused(this.jobId, refusal.code, refusal.message)
      : this.#host.connectionError;
  }

  #setJoined(joined: Joined, refusal: JobState["refusal"] = null): void {
    this.#joined = joined;
    this.#refusal = refusal;
    this.#frozenState = null;
    this.#invalidate();
  }

  #invalidate(): void {
    this.#snapshot = null;
    if (this.#frozenState === null) {
      this.#host.onChange(this);
    }
  }
}

/**
 * Return whether a request can cancel a job: a page shows its button then. The server decides whether
 * the user may do so.
 */
export function isCancellable({
  status,
  cancellable,
}: Pick<JobState, "status" | "cancellable">): boolean {
  return cancellable && !isTerminal(status) && status !== "cancelling" && status !== "pending";
}

/** Return the state of a job without events. */
export function emptyState(jobId: string): JobState {
  return toState(jobId, emptyRecord(), { joined: "no", refusal: null, connection: "idle" });
}

function toState(
  jobId: string,
  record: JobRecord,
  followed: Pick<JobState, "joined" | "refusal" | "connection">,
): JobState {
  const { progress, logs, history } = record;
  return {
    jobId,
    ...followed,
    status: record.status,
    ...record.info,
    attempt: record.attempt,
    run: record.run,
    percentage: progress?.percentage ?? null,
    message: progress?.message ?? null,
    stage: progress?.stage ?? null,
    current: progress?.current ?? null,
    total: progress?.total ?? null,
    rate: progress?.rate ?? null,
    eta: remainingSeconds(record),
    retry: record.retry,
    // Lazy, because most snapshots are replaced before they are read.
    get logs() {
      return logs.items;
    },
    droppedLogs: logs.dropped,
    get history() {
      return history.items;
    },
    gaps: record.gaps,
    result: record.result,
    error: record.error,
    cancellation: record.cancellation,
    queuedAt: record.queuedAt,
    startedAt: record.startedAt,
    endedAt: record.endedAt,
    updatedAt: record.updatedAt,
  };
}

/** The estimate of the last progress event, minus the time until the latest event. */
function remainingSeconds({ progress, updatedAt, endedAt }: JobRecord): number | null {
  if (progress?.eta === undefined || updatedAt === null || endedAt !== null) {
    return null;
  }
  const since = (Date.parse(updatedAt) - Date.parse(progress.timestamp)) / 1000;
  return Math.max(0, progress.eta - Math.max(0, since));
}
