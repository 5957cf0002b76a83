import { REJOIN_RETRIES, RETRYABLE_CODES, RETRYABLE_JOIN_CODES, retryDelay } from "./backoff.js";
import {
  type CancelHost,
  type CancelOptions,
  CancelRequests,
  type CancelResult,
} from "./cancelRequests.js";
import {
  type Connection,
  type ConnectionHost,
  ConnectionManager,
  type ConnectionState,
} from "./connection.js";
import { dispatchMessage, type MessageHost } from "./dispatch.js";
import { ConnectionRefused } from "./errors.js";
import type { FeedOptions } from "./feedFilter.js";
import { type FeedHost, FeedManager, isFeedMessageName } from "./feedManager.js";
import type { FeedStore } from "./feedView.js";
import { FrameScheduler } from "./frameScheduler.js";
import { iterateEvents, waitForResult } from "./iterate.js";
import { Job, type JobHost, type JobState, type JobStore } from "./job.js";
import { checkOptions, type JobClientOptions } from "./options.js";
import {
  isJobId,
  type JobEvent,
  type JobGap,
  type LeftMessage,
  type Messages,
  type Refusal,
} from "./protocol.js";
import type { Store } from "./store.js";
import { Timers } from "./timers.js";

/** The default of `logLimit`: the number of log lines to keep per job. */
export const DEFAULT_LOG_LIMIT = 1000;

/** Options of `events` and `result`. */
export interface FollowOptions {
  /** Aborts the iteration, or the wait, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Receives an event of a job, and the state of the job after the event. */
export type JobListener = (event: JobEvent | JobGap, state: JobState) => void;

/** Follows jobs and feeds over one connection. The first follower opens it. */
export interface JobClient {
  /** The state of the connection, as a store. */
  readonly connection: Store<Connection>;

  /**
   * Return the store of a job's state. Subscribing follows the job; the client leaves it when the last
   * subscriber unsubscribes. A store without subscribers is not updated.
   *
   * @example
   * const job = client.job("f1c0ffee");
   * const stop = job.subscribe(() => console.log(job.getSnapshot().percentage));
   */
  job(jobId: string): JobStore;

  /**
   * Return a store of the jobs in a feed: `mine`, `all`, `owner:<subject>` or `tag:<tag>`. Subscribing
   * follows the feed; the client leaves it when the last subscriber of its stores unsubscribes. Stores
   * of one feed share one join, whatever their options are.
   *
   * @throws TypeError or RangeError that names an invalid option.
   *
   * @example
   * const feed = client.feed("mine", { status: "running" });
   * const stop = feed.subscribe(() => console.log(feed.getSnapshot().jobs));
   */
  feed(name: string, options?: FeedOptions): FeedStore;

  /**
   * Call `listener` with each event of a job exactly once and in order, starting with the events that
   * are already known. A `job_gap` takes the place of events that the server no longer stores. Returns
   * a function that stops it.
   */
  follow(jobId: string, listener: JobListener): () => void;

  /**
   * Iterate over the events of a job: first those already known, then new ones. A `job_gap` takes the
   * place of events that the server no longer stores. The iteration ends after the terminal event.
   *
   * @throws JobRefused if the job may not be followed.
   * @throws ConnectionRefused if the token is refused or the client is closed.
   * @throws the signal's reason when `options.signal` is aborted.
   */
  events(jobId: string, options?: FollowOptions): AsyncIterableIterator<JobEvent | JobGap>;

  /**
   * Wait for a job to end and return its result.
   *
   * @throws JobFailed if the job ends with an error, and the errors of `events`.
   */
  result(jobId: string, options?: FollowOptions): Promise<unknown>;

  /**
   * Cancel a job. The job need not be followed. A request that a lost connection or a temporary refusal
   * interrupts is repeated for 20 seconds.
   *
   * @throws CancelRefused if the server refuses, or does not answer in time.
   * @throws ConnectionRefused if the token is refused or the client is closed.
   *
   * @example
   * const { outcome } = await client.cancel("f1c0ffee", { message: "wrong file" });
   */
  cancel(jobId: string, options?: CancelOptions): Promise<CancelResult>;

  /**
   * Retry refused connections, jobs and feeds now, without waiting for the next scheduled attempt. Renew
   * the token: call this when another user has signed in. The client then drops the jobs and lists of
   * the previous user, and connects again.
   */
  reconnect(): void;

  /** Close the connection and remove all listeners. A closed client cannot be reopened. */
  close(): void;
}

/**
 * Create a client. It connects when the first job is followed.
 *
 * @throws TypeError or RangeError that names an invalid option.
 *
 * @example
 * const client = createJobClient({ getToken: () => fetchToken() });
 * const result = await client.result("f1c0ffee");
 */
export function createJobClient(options: JobClientOptions): JobClient {
  checkOptions(options);
  return new Client(options);
}

class Client implements JobClient, JobHost, FeedHost, CancelHost, ConnectionHost, MessageHost {
  readonly logLimit: number;
  readonly #timers = new Timers();
  readonly #frames = new FrameScheduler();
  readonly #connection: ConnectionManager;
  readonly #feeds = new FeedManager(this);
  readonly #cancelRequests = new CancelRequests(this);
  readonly #followedJobs = new Map<string, Job>();
  // All callers share one `Job` per id. The garbage collector removes those without references.
  readonly #jobs = new Map<string, JobReference>();
  readonly #finalizer = createFinalizer((jobId) => {
    if (!this.#jobs.get(jobId)?.deref()) {
      this.#jobs.delete(jobId);
    }
  });

  constructor(options: JobClientOptions) {
    const { url, getToken, transports = ["websocket"], namespace = "/", logLimit } = options;
    this.logLimit = logLimit ?? DEFAULT_LOG_LIMIT;
    const connectionOptions = { url, getToken, transports, namespace };
    this.#connection = new ConnectionManager(connectionOptions, this, this.#timers, this.#frames);
  }

  get connection(): Store<Connection> {
    return this.#connection;
  }

  get connectionState(): ConnectionState {
    return this.#connection.getSnapshot().state;
  }

  get connectionError(): ConnectionRefused | null {
    const { state, code, message } = this.#connection.getSnapshot();
    if (state === "closed") {
      return new ConnectionRefused("closed", "the client is closed");
    }
    return state === "refused"
      ? new ConnectionRefused(code ?? "refused", message ?? "the connection was refused")
      : null;
  }

  job(jobId: string): JobStore {
    return this.#job(jobId);
  }

  feed(name: string, options: FeedOptions = {}): FeedStore {
    return this.#feeds.open(name, options);
  }

  follow(jobId: string, listener: JobListener): () => void {
    const job = this.#job(jobId);
    return job.follow({ onEvent: (event) => listener(event, job.state) });
  }

  events(jobId: string, options: FollowOptions = {}): AsyncIterableIterator<JobEvent | JobGap> {
    return iterateEvents(this.#job(jobId), options.signal);
  }

  result(jobId: string, options: FollowOptions = {}): Promise<unknown> {
    return waitForResult(this.#job(jobId), options.signal);
  }

  cancel(jobId: string, options: CancelOptions = {}): Promise<CancelResult> {
    return this.#cancelRequests.request(jobId, options);
  }

  reconnect(): void {
    this.#connection.retry();
    for (const job of this.#followedJobs.values()) {
      if (job.isRefused) {
        this.#join(job);
      }
    }
    this.#feeds.retry();
  }

  close(): void {
    if (this.connectionState === "closed") {
      return;
    }
    this.#connection.close();
    this.#frames.flush();
    this.#feeds.close();
    for (const job of this.#followedJobs.values()) {
      job.removeListeners();
    }
    this.#connection.removeListeners();
    this.#followedJobs.clear();
    this.#timers.clear();
  }

  onFollow(job: Job): void {
    if (!isJobId(job.jobId)) {
      return;
    }
    this.openConnection();
    if (!this.#followedJobs.has(job.jobId)) {
      this.#followedJobs.set(job.jobId, job);
      this.#join(job);
    }
  }

  openConnection(): void {
    if (this.connectionState === "idle") {
      // A follower that leaves in the same tick opens no connection.
      this.#timers.after(0, () => this.#isUsed && this.#connection.open());
    }
  }

  onUnfollow(job: Job): void {
    // React's strict mode unsubscribes and subscribes again in the same tick.
    this.#timers.after(0, () => {
      if (!job.isFollowed && this.#followedJobs.delete(job.jobId)) {
        this.#leave(job.jobId);
        job.reset();
        this.#joinWaitingJob();
      }
    });
  }

  onChange(job: Job): void {
    if (job.isFollowed) {
      this.#frames.schedule(job.notify);
    }
  }

  requestFeed<N extends "join_feed" | "leave_feed">(
    name: N,
    request: Messages[N],
    done: (ack: Messages[`${N}.ack`] | Refusal) => void,
  ): void {
    this.#connection.request(name, request, done);
  }

  requestCancel(
    request: Messages["cancel_job"],
    done: (ack: Messages["cancel_job.ack"]) => void,
  ): void {
    this.#connection.request("cancel_job", request, done);
  }

  /** Wait for the callers that subscribe in the same tick: they share one join. */
  deferJoin(join: () => void): void {
    this.#timers.after(0, join);
  }

  deferLeave(leave: () => void): void {
    this.#timers.after(0, leave);
  }

  after(delay: number, action: () => void): () => void {
    return this.#timers.after(delay, action);
  }

  schedule(publish: () => void): void {
    this.#frames.schedule(publish);
  }

  onConnect(): void {
    for (const job of this.#followedJobs.values()) {
      this.#join(job);
    }
    this.#feeds.onConnect();
    this.#cancelRequests.onConnect();
  }

  onDisconnect(): void {
    for (const job of this.#followedJobs.values()) {
      job.markDisconnected();
    }
    this.#feeds.onDisconnect();
  }

  onStateChange(): void {
    this.#cancelRequests.onStateChange();
    const connectionError = this.connectionError;
    for (const job of this.#followedJobs.values()) {
      if (this.connectionState === "closed") {
        job.markDisconnected();
      }
      if (connectionError) {
        job.notifyError(connectionError);
      }
      this.onChange(job);
    }
  }

  onSubjectChange(): void {
    for (const job of this.#followedJobs.values()) {
      job.reset(); // the new user may not see what the previous one saw
    }
    this.#feeds.onSubjectChange();
    this.#cancelRequests.onSubjectChange();
  }

  onMessage(name: string, payload: unknown): void {
    if (isFeedMessageName(name)) {
      this.#feeds.onMessage(name, payload);
    } else {
      dispatchMessage(name, payload, this);
    }
  }

  followedJob(jobId: string): Job | undefined {
    return this.#followedJobs.get(jobId);
  }

  /** The server ended a join. Join again if the reason is temporary. */
  onLeft(left: LeftMessage): void {
    const job = this.#followedJobs.get(left.job_id);
    if (!job?.acceptsEvents) {
      return; // it belongs to an earlier join; the latest one is not acknowledged yet
    }
    if (RETRYABLE_CODES.has(left.code)) {
      job.markDisconnected();
      this.#timers.after(retryDelay({}, REJOIN_RETRIES), () => this.#join(job));
    } else {
      job.handleRefused(left.code, left.message);
      this.#joinWaitingJob();
    }
  }

  get #isUsed(): boolean {
    const jobs = [...this.#followedJobs.values()];
    const isNeeded = this.#feeds.hasFollowers || this.#cancelRequests.isPending;
    return isNeeded || jobs.some((job) => job.isFollowed);
  }

  #job(jobId: string): Job {
    let job = this.#jobs.get(jobId)?.deref();
    if (!job) {
      job = new Job(jobId, this);
      if (isJobId(jobId)) {
        this.#jobs.set(jobId, createReference(job));
        this.#finalizer?.register(job, jobId);
      } else {
        job.handleRefused(
          "invalid_request",
          "invalid job id: 1 to 128 letters, digits or _ . : @ = + / ~ - are allowed",
        );
      }
    }
    return job;
  }

  #join(job: Job, retries = 0): void {
    if (!this.#connection.isConnected || this.#followedJobs.get(job.jobId) !== job) {
      return;
    }
    const { request, join } = job.beginJoin();
    this.#connection.request("join_job", request, (ack) => {
      if (!job.isLatestJoin(join)) {
        return;
      }
      if (ack.ok) {
        job.handleAccepted(ack);
      } else if (RETRYABLE_JOIN_CODES.has(ack.code)) {
        const delay = retryDelay(ack, retries);
        this.#timers.after(delay, () => job.isLatestJoin(join) && this.#join(job, retries + 1));
      } else {
        job.handleRefused(ack.code, ack.message);
      }
    });
  }

  /** Leave a job. Retry until the server accepts it, or until the job is followed again. */
  #leave(jobId: string, retries = 0): void {
    this.#connection.request("leave_job", { job_id: jobId }, (ack) => {
      if (!ack.ok && RETRYABLE_CODES.has(ack.code)) {
        const retry = (): void => {
          if (!this.#followedJobs.has(jobId)) {
            this.#leave(jobId, retries + 1);
          }
        };
        this.#timers.after(retryDelay(ack, retries), retry);
      }
    });
  }

  /** Join one job that was refused because the connection followed too many. */
  #joinWaitingJob(): void {
    for (const job of this.#followedJobs.values()) {
      if (job.refusalCode === "too_many_jobs") {
        this.#join(job);
        return;
      }
    }
  }
}

type JobReference = Pick<WeakRef<Job>, "deref">;

// Older React Native runtimes lack both; there, jobs stay in memory as long as the client.
function createReference(job: Job): JobReference {
  return typeof WeakRef === "function" ? new WeakRef(job) : { deref: () => job };
}

function createFinalizer(forget: (jobId: string) => void): FinalizationRegistry<string> | null {
  return typeof FinalizationRegistry === "function" ? new FinalizationRegistry(forget) : null;
}
