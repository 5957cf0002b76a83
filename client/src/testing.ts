/** A client without a server, whose jobs a test drives. */

import { type CancelOptions, type CancelResult, cancelRequest } from "./cancelRequests.js";
import type { FollowOptions, JobClient, JobListener } from "./client.js";
import type { Connection, ConnectionState } from "./connection.js";
import { CancelRefused, ConnectionRefused } from "./errors.js";
import { type FakeFeed, FakeFeedRecord } from "./fakeFeed.js";
import type { FeedOptions } from "./feedFilter.js";
import { type FeedHost, FeedManager } from "./feedManager.js";
import type { FeedStore } from "./feedView.js";
import { NO_CONNECTION } from "./followedJob.js";
import { type JobInfo, joinedFields } from "./info.js";
import { iterateEvents, waitForResult } from "./iterate.js";
import { Job, type JobHost, type JobState, type JobStore } from "./job.js";
import { parseEvent } from "./parse.js";
import {
  isCancelReason,
  isTerminal,
  type JobEvent,
  type JobEventName,
  type JobGap,
  type JobInfoMessage,
  type JobProgressMessage,
  type JobStatusMessage,
  type Level,
  type Messages,
  type Reason,
  type State,
} from "./protocol.js";
import { applyEvent, emptyRecord } from "./record.js";
import { Listeners, type Store } from "./store.js";

export type { FakeFeed, FakeSummary } from "./fakeFeed.js";

/** The fields of an event that a test sets. */
type Data<Message> = Omit<Message, "job_id" | "seq" | "timestamp">;

/** The server's side of a job. Events that a test publishes before a client follows are its history. */
export interface FakeJob {
  readonly jobId: string;
  /** Whether a client follows the job. */
  readonly isFollowed: boolean;
  /** Publish a status: `queued`, `started`, `retrying` or another one. */
  status(
    status: JobStatusMessage["status"],
    data?: Omit<Data<JobStatusMessage>, "status">,
  ): FakeJob;
  /** Publish progress: a percentage, or null if it is unknown. */
  progress(percentage: number | null, data?: Omit<Data<JobProgressMessage>, "percentage">): FakeJob;
  /** Publish another title or further tags. */
  info(data: Data<JobInfoMessage>): FakeJob;
  log(message: string, level?: Level): FakeJob;
  /** End the job with a result. */
  complete(result?: unknown): FakeJob;
  /** End the job with an error. */
  fail(message: string, data?: { readonly error?: string; readonly reason?: Reason }): FakeJob;
  /** End the job as cancelled. */
  cancelled(data?: { readonly by?: string; readonly message?: string }): FakeJob;
  /** The messages of the requests to cancel the job; `""` for a request without one. */
  readonly cancelRequests: readonly string[];
  /** Refuse requests to cancel the job: `not_cancellable`, `rate_limited`, ... */
  refuseCancel(code?: string, message?: string): FakeJob;
  /** Refuse the client that follows the job, and later ones: `job_not_found`, ... */
  refuse(code?: string, message?: string): FakeJob;
}

/** A client for tests. It changes nothing by itself, and reports each change at once. */
export interface FakeJobClient extends JobClient {
  /** Return the server's side of a job. */
  fakeJob(jobId: string): FakeJob;
  /** Return the server's side of a feed. */
  fakeFeed(name: string): FakeFeed;
  /** Lose the connection. `connect` restores it. */
  disconnect(message?: string): void;
  /** Establish the connection and join followed jobs. A new client is connected. */
  connect(): void;
  /** Refuse the connection, as for an invalid token. */
  refuse(code: string, message: string): void;
}

/**
 * Create a client whose jobs a test drives.
 *
 * @example
 * const client = createFakeJobClient();
 * render(<JobcastProvider client={client}><Page jobId="42" /></JobcastProvider>);
 * act(() => client.fakeJob("42").status("started").progress(40));
 */
export function createFakeJobClient(): FakeJobClient {
  return new FakeClient();
}

class FakeClient implements FakeJobClient, JobHost, FeedHost {
  readonly logLimit: number = Number.POSITIVE_INFINITY;
  readonly #jobs = new Map<string, FakeJobRecord>();
  readonly #fakeFeeds = new Map<string, FakeFeedRecord>();
  readonly #feeds = new FeedManager(this);
  readonly #listeners = new Listeners();
  #connection: Connection = connectionOf("connected");

  readonly connection: Store<Connection> = {
    subscribe: (listener) => this.#listeners.add(listener),
    getSnapshot: () => this.#connection,
  };

  get connectionState(): ConnectionState {
    return this.#connection.state;
  }

  get connectionError(): ConnectionRefused | null {
    const { state, code, message } = this.#connection;
    return state === "refused" || state === "closed"
      ? new ConnectionRefused(code ?? state, message ?? "the client is closed")
      : null;
  }

  fakeJob(jobId: string): FakeJobRecord {
    let record = this.#jobs.get(jobId);
    if (!record) {
      record = new FakeJobRecord(new Job(jobId, this));
      this.#jobs.set(jobId, record);
    }
    return record;
  }

  fakeFeed(name: string): FakeFeedRecord {
    let record = this.#fakeFeeds.get(name);
    if (!record) {
      record = new FakeFeedRecord(name, (kind, message) => this.#feeds.onMessage(kind, message));
      this.#fakeFeeds.set(name, record);
    }
    return record;
  }

  feed(name: string, options: FeedOptions = {}): FeedStore {
    return this.#feeds.open(name, options);
  }

  job(jobId: string): JobStore {
    return this.fakeJob(jobId).job;
  }

  follow(jobId: string, listener: JobListener): () => void {
    const { job } = this.fakeJob(jobId);
    return job.follow({ onEvent: (event) => listener(event, job.state) });
  }

  events(jobId: string, options: FollowOptions = {}): AsyncIterableIterator<JobEvent | JobGap> {
    return iterateEvents(this.fakeJob(jobId).job, options.signal);
  }

  result(jobId: string, options: FollowOptions = {}): Promise<unknown> {
    return waitForResult(this.fakeJob(jobId).job, options.signal);
  }

  async cancel(jobId: string, options: CancelOptions = {}): Promise<CancelResult> {
    const { message = "" } = cancelRequest(jobId, options);
    const error = this.connectionError;
    if (error) {
      throw error;
    }
    return this.fakeJob(jobId).cancel(message);
  }

  reconnect(): void {
    this.connect();
  }

  connect(): void {
    this.#setConnection(connectionOf("connected"));
    this.#eachFollowed((record) => record.join());
    this.#feeds.onConnect();
  }

  disconnect(message = "the connection was lost"): void {
    this.#setConnection(connectionOf("reconnecting", null, message));
    this.#eachFollowed(({ job }) => job.markDisconnected());
    this.#loseFeeds();
  }

  refuse(code: string, message: string): void {
    this.#setConnection(connectionOf("refused", code, message));
    const error = new ConnectionRefused(code, message);
    this.#eachFollowed(({ job }) => {
      job.markDisconnected();
      job.notifyError(error);
    });
    this.#loseFeeds();
  }

  close(): void {
    this.#setConnection(connectionOf("closed"));
    for (const { job } of this.#jobs.values()) {
      job.markDisconnected();
      job.removeListeners();
    }
    this.#feeds.close();
    this.#listeners.clear();
  }

  onFollow(job: Job): void {
    if (this.connectionState === "connected") {
      this.fakeJob(job.jobId).join();
    }
  }

  onUnfollow(job: Job): void {
    // React's strict mode unsubscribes and subscribes again in the same tick.
    queueMicrotask(() => job.isFollowed || job.reset());
  }

  onChange(job: Job): void {
    job.notify();
  }

  openConnection(): void {} // a fake client is connected, or lost its connection

  requestFeed<N extends "join_feed" | "leave_feed">(
    name: N,
    request: Messages[N],
    done: (ack: Messages[`${N}.ack`]) => void,
  ): void {
    const feed = this.fakeFeed(request.feed);
    if (name === "join_feed") {
      feed.join(request, done as (ack: Messages["join_feed.ack"]) => void);
    } else {
      feed.leave();
    }
  }

  deferJoin(join: () => void): void {
    join();
  }

  deferLeave(leave: () => void): void {
    queueMicrotask(leave);
  }

  after(_delay: number, action: () => void): void {
    queueMicrotask(action);
  }

  schedule(publish: () => void): void {
    publish();
  }

  #loseFeeds(): void {
    for (const feed of this.#fakeFeeds.values()) {
      feed.leave();
    }
    this.#feeds.onDisconnect();
  }

  #eachFollowed(action: (record: FakeJobRecord) => void): void {
    for (const record of this.#jobs.values()) {
      if (record.isFollowed) {
        action(record);
      }
    }
  }

  #setConnection(connection: Connection): void {
    if (this.connectionState !== "closed") {
      this.#connection = connection;
      this.#listeners.notify();
      this.#eachFollowed(({ job }) => job.notify());
    }
  }
}

function connectionOf(
  state: ConnectionState,
  code: string | null = null,
  message: string | null = null,
): Connection {
  return { ...NO_CONNECTION, state, code, message, since: Date.now() };
}

const EPOCH = "fake"; // a test has one record per job

function infoAfter(events: readonly JobEvent[]): JobInfo {
  return events.reduce((record, event) => applyEvent(record, event, 1), emptyRecord()).info;
}

class FakeJobRecord implements FakeJob {
  readonly job: Job;
  readonly #events: JobEvent[] = [];
  readonly cancelRequests: string[] = [];
  #status: State = "pending";
  #refusal: JobState["refusal"] = null;
  #cancelRefusal: JobState["refusal"] = null;

  constructor(job: Job) {
    this.job = job;
  }

  get jobId(): string {
    return this.job.jobId;
  }

  get isFollowed(): boolean {
    return this.job.isFollowed;
  }

  status(
    status: JobStatusMessage["status"],
    data: Omit<Data<JobStatusMessage>, "status"> = {},
  ): FakeJob {
    this.#status = status;
    return this.#publish("job_status", { ...data, status });
  }

  progress(
    percentage: number | null,
    data: Omit<Data<JobProgressMessage>, "percentage"> = {},
  ): FakeJob {
    return this.#publish("job_progress", { ...data, percentage });
  }

  info(data: Data<JobInfoMessage>): FakeJob {
    return this.#publish("job_info", data);
  }

  log(message: string, level: Level = "info"): FakeJob {
    return this.#publish("job_log", { level, message });
  }

  complete(result: unknown = null): FakeJob {
    this.#status = "complete";
    return this.#publish("job_complete", { result });
  }

  fail(
    message: string,
    { error = "Error", reason = "failure" }: { error?: string; reason?: Reason } = {},
  ): FakeJob {
    this.#status = isCancelReason(reason) ? "cancelled" : "error";
    return this.#publish("job_error", { error, message, reason });
  }

  cancelled({ by, message = "cancelled" }: { by?: string; message?: string } = {}): FakeJob {
    this.#status = "cancelled";
    const data = { error: "JobCancelled", message, reason: "cancelled" };
    return this.#publish("job_error", by === undefined ? data : { ...data, by });
  }

  refuseCancel(code = "not_cancellable", message = "the job cannot be cancelled"): FakeJob {
    this.#cancelRefusal = { code, message };
    return this;
  }

  /** Answer a request to cancel the job, as the server does. */
  cancel(message: string): CancelResult {
    this.cancelRequests.push(message);
    const refusal = this.#refusal ?? this.#cancelRefusal ?? this.#ownCancelRefusal();
    if (refusal) {
      throw new CancelRefused(this.jobId, refusal.code, refusal.message);
    }
    if (isTerminal(this.#status)) {
      return { outcome: "already_ended", terminates: false };
    }
    const data = message === "" ? {} : { message };
    if (this.#status === "queued" || this.#status === "retrying") {
      this.cancelled(data);
      return { outcome: "cancelled", terminates: false };
    }
    if (this.#status !== "cancelling") {
      this.status("cancelling", data);
    }
    return { outcome: "requested", terminates: infoAfter(this.#events).terminates };
  }

  #ownCancelRefusal(): JobState["refusal"] {
    if (this.#status === "pending") {
      return {
        code: "job_not_found",
        message: "this job does not exist, or you may not cancel it",
      };
    }
    const canCancel = isTerminal(this.#status) || infoAfter(this.#events).cancellable;
    return canCancel ? null : { code: "not_cancellable", message: "the job cannot be cancelled" };
  }

  refuse(
    code = "job_not_found",
    message = "this job does not exist, or you may not follow it",
  ): FakeJob {
    this.#refusal = { code, message };
    if (this.isFollowed) {
      this.job.handleRefused(code, message);
    }
    return this;
  }

  /** Answer a join, as the server does: the record, its history, and the acknowledgement. */
  join(): void {
    const { job } = this;
    const cursor = { epoch: EPOCH, seq: this.#events.length };
    job.beginJoin();
    if (this.#refusal) {
      job.handleRefused(this.#refusal.code, this.#refusal.message);
      return;
    }
    const info = joinedFields(infoAfter(this.#events));
    job.handleJoined({ job_id: this.jobId, ...cursor, status: this.#status, ...info });
    for (const event of this.#events) {
      job.handleEvent(event);
    }
    job.handleAccepted(cursor);
  }

  #publish<N extends JobEventName>(name: N, data: Data<Messages[N]>): FakeJob {
    const stamp = {
      job_id: this.jobId,
      seq: this.#events.length + 1,
      timestamp: new Date().toISOString(),
    };
    const event = parseEvent(name, { ...stamp, ...data });
    this.#events.push(event);
    this.job.handleEvent(event);
    return this;
  }
}
