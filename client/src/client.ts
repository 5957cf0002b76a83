import { pauseAfter } from "./backoff.js";
import { ConnectionRefused, InvalidMessage, report } from "./errors.js";
import { Frames } from "./frames.js";
import { eventsOf, resultOf } from "./iterate.js";
import { Job, type JobHost, type JobState, type JobStore } from "./job.js";
import {
  type Connection,
  type ConnectionState,
  INVALID_ANSWER,
  Link,
  type LinkHost,
} from "./link.js";
import { checkOptions, type JobClientOptions } from "./options.js";
import { isJobEventName, parse, parseEvent } from "./parse.js";
import { isJobId, type JobEvent, type LeftMessage } from "./protocol.js";
import type { Store } from "./store.js";
import { Timers } from "./timers.js";

/** Log lines that are kept of a job. */
export const DEFAULT_LOG_LIMIT = 1000;

// Codes of refusals after which the same request may succeed.
const AGAIN: ReadonlySet<string> = new Set(["unavailable", "internal_error", "rate_limited"]);
const JOIN_AGAIN: ReadonlySet<string> = new Set([...AGAIN, "not_authenticated", INVALID_ANSWER]);

// A server that gave up a job is asked again as after so many tries: in 0.4 to 0.8 seconds.
const LEFT_TRIES = 3;

export interface FollowOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Follows jobs over one connection, which begins with the first follower. */
export interface JobClient {
  readonly connection: Store<Connection>;

  /** What is known of a job. Who subscribes follows it; the last who leaves, leaves it. */
  job(jobId: string): JobStore;

  /**
   * Calls `listener` with each event of a job once, in order: first with what is known already.
   * Returns what ends that.
   */
  follow(jobId: string, listener: (event: JobEvent, state: JobState) => void): () => void;

  /**
   * The events of a job: what is known, then what comes, and its end as the last.
   *
   * @throws JobRefused if the job may not be followed, ConnectionRefused if the token isn't
   *   accepted, or the signal's reason.
   */
  events(jobId: string, options?: FollowOptions): AsyncIterableIterator<JobEvent>;

  /**
   * What a job gives, when it has ended.
   *
   * @throws JobFailed if it ended with an error, and what `events` throws.
   */
  result(jobId: string, options?: FollowOptions): Promise<unknown>;

  /** Tries again now what was refused, or waits for its next try. */
  reconnect(): void;

  /** Ends the connection and lets go of all listeners, for good. */
  close(): void;
}

/** @throws TypeError or RangeError if an option cannot be used. */
export function createJobClient(options: JobClientOptions): JobClient {
  checkOptions(options);
  return new Client(options);
}

class Client implements JobClient, JobHost, LinkHost {
  readonly logLimit: number;
  readonly #timers = new Timers();
  readonly #frames = new Frames();
  readonly #link: Link;
  readonly #followed = new Map<string, Job>();
  // Whoever holds a job has the same as anybody else; those that nobody holds go.
  readonly #jobs = new Map<string, Held>();
  readonly #gone = registry((jobId) => {
    if (!this.#jobs.get(jobId)?.deref()) {
      this.#jobs.delete(jobId);
    }
  });

  constructor(options: JobClientOptions) {
    const { url, getToken, transports = ["websocket"], namespace = "/", logLimit } = options;
    this.logLimit = logLimit ?? DEFAULT_LOG_LIMIT;
    const link = { url, getToken, transports, namespace };
    this.#link = new Link(link, this, this.#timers, this.#frames);
  }

  get connection(): Store<Connection> {
    return this.#link;
  }

  get connectionState(): ConnectionState {
    return this.#link.getSnapshot().state;
  }

  get problem(): ConnectionRefused | null {
    const { state, code, message } = this.#link.getSnapshot();
    if (state === "closed") {
      return new ConnectionRefused("closed", "the client was closed");
    }
    return state === "refused"
      ? new ConnectionRefused(code ?? "refused", message ?? "the connection was refused")
      : null;
  }

  job(jobId: string): JobStore {
    return this.#job(jobId);
  }

  follow(jobId: string, listener: (event: JobEvent, state: JobState) => void): () => void {
    const job = this.#job(jobId);
    return job.follow({ see: (event) => listener(event, job.state) });
  }

  events(jobId: string, options: FollowOptions = {}): AsyncIterableIterator<JobEvent> {
    return eventsOf(this.#job(jobId), options.signal);
  }

  result(jobId: string, options: FollowOptions = {}): Promise<unknown> {
    return resultOf(this.#job(jobId), options.signal);
  }

  reconnect(): void {
    this.#link.retry();
    for (const job of this.#followed.values()) {
      if (job.isRefused) {
        this.#join(job);
      }
    }
  }

  close(): void {
    if (this.connectionState === "closed") {
      return;
    }
    this.#link.close();
    this.#frames.flush();
    for (const job of this.#followed.values()) {
      job.clear();
    }
    this.#link.clear();
    this.#followed.clear();
    this.#timers.clear();
  }

  followed(job: Job): void {
    if (!isJobId(job.jobId)) {
      return;
    }
    if (this.connectionState === "idle") {
      // Not for somebody who is gone in the same moment.
      this.#timers.after(0, () => this.#isNeeded && this.#link.open());
    }
    if (!this.#followed.has(job.jobId)) {
      this.#followed.set(job.jobId, job);
      this.#join(job);
    }
  }

  left(job: Job): void {
    // React's strict mode leaves, and comes back in the same moment.
    this.#timers.after(0, () => {
      if (!job.isFollowed && this.#followed.delete(job.jobId)) {
        this.#leave(job.jobId);
        job.forget();
        this.#joinNext();
      }
    });
  }

  changed(job: Job): void {
    if (job.isFollowed) {
      this.#frames.request(job.tell);
    }
  }

  connected(): void {
    for (const job of this.#followed.values()) {
      this.#join(job);
    }
  }

  lost(): void {
    for (const job of this.#followed.values()) {
      job.lose();
    }
  }

  stateChanged(): void {
    const problem = this.problem;
    for (const job of this.#followed.values()) {
      if (this.connectionState === "closed") {
        job.lose();
      }
      if (problem) {
        job.fail(problem);
      }
      this.changed(job);
    }
  }

  subjectChanged(): void {
    for (const job of this.#followed.values()) {
      job.forget(); // what one may see, another may not
    }
  }

  received(name: string, payload: unknown): void {
    try {
      if (name === "joined") {
        const joined = parse(name, payload);
        this.#followed.get(joined.job_id)?.begin(joined);
      } else if (name === "left") {
        this.#end(parse(name, payload));
      } else if (isJobEventName(name)) {
        const event = parseEvent(name, payload);
        this.#followed.get(event.job_id)?.receive(event);
      }
    } catch (error) {
      if (!(error instanceof InvalidMessage)) {
        throw error;
      }
      report(error);
    }
  }

  get #isNeeded(): boolean {
    return [...this.#followed.values()].some((job) => job.isFollowed);
  }

  #job(jobId: string): Job {
    let job = this.#jobs.get(jobId)?.deref();
    if (!job) {
      job = new Job(jobId, this);
      if (isJobId(jobId)) {
        this.#jobs.set(jobId, held(job));
        this.#gone?.register(job, jobId);
      } else {
        job.refuse("invalid_request", "this cannot be the id of a job");
      }
    }
    return job;
  }

  #join(job: Job, tries = 0): void {
    if (!this.#link.isConnected || this.#followed.get(job.jobId) !== job) {
      return;
    }
    const { request, join } = job.beginJoin();
    this.#link.request("join_job", request, (answer) => {
      if (!job.isLatest(join)) {
        return;
      }
      if (answer.ok) {
        job.accept(answer);
      } else if (JOIN_AGAIN.has(answer.code)) {
        const pause = pauseAfter(answer, tries);
        this.#timers.after(pause, () => job.isLatest(join) && this.#join(job, tries + 1));
      } else {
        job.refuse(answer.code, answer.message);
      }
    });
  }

  /** The server follows a job no more for this client: for good, or until it is asked again. */
  #end(left: LeftMessage): void {
    const job = this.#followed.get(left.job_id);
    if (!job?.hears) {
      return; // it belongs to a former join: a newer one waits for its answer
    }
    if (AGAIN.has(left.code)) {
      job.lose();
      this.#timers.after(pauseAfter({}, LEFT_TRIES), () => this.#join(job));
    } else {
      job.refuse(left.code, left.message);
      this.#joinNext();
    }
  }

  /** Leaves a job, unless somebody follows it again before the server accepts that. */
  #leave(jobId: string, tries = 0): void {
    this.#link.request("leave_job", { job_id: jobId }, (answer) => {
      if (!answer.ok && AGAIN.has(answer.code)) {
        const again = (): void => {
          if (!this.#followed.has(jobId)) {
            this.#leave(jobId, tries + 1);
          }
        };
        this.#timers.after(pauseAfter(answer, tries), again);
      }
    });
  }

  /** There is room for one more on the connection. */
  #joinNext(): void {
    for (const job of this.#followed.values()) {
      if (job.refusedWith === "too_many_jobs") {
        this.#join(job);
        return;
      }
    }
  }
}

type Held = Pick<WeakRef<Job>, "deref">;

// Older runtimes of React Native have neither: there, jobs stay until the client goes.
function held(job: Job): Held {
  return typeof WeakRef === "function" ? new WeakRef(job) : { deref: () => job };
}

function registry(forget: (jobId: string) => void): FinalizationRegistry<string> | null {
  return typeof FinalizationRegistry === "function" ? new FinalizationRegistry(forget) : null;
}
