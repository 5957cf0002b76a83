/** Follows jobs over the HTTP interface: event streams, without Socket.IO. */

import type { CancelOptions, CancelResult } from "../cancelRequests.js";
import type { ConnectionState } from "../connection.js";
import { FrameScheduler } from "../frameScheduler.js";
import { Job, type JobHost } from "../job.js";
import { isJobId } from "../protocol.js";
import { Timers } from "../timers.js";
import { cancelOverHttp, type HttpCancelHost } from "./cancelOverHttp.js";
import { isOpen, JobStream, type StreamHost } from "./jobStream.js";
import { type RequestToken, TokenCache } from "./tokenCache.js";
import type { IssuedToken } from "./tokenEndpoint.js";

export interface HttpJobClientOptions {
  /** The server's URL. Default: the one that the token's endpoint names, else the page's origin. */
  readonly baseUrl?: string | undefined;
  /** The source of tokens; null if cookies authenticate the page. */
  readonly requestToken: RequestToken | null;
  readonly logLimit: number;
  /** The last follower is gone. */
  readonly onIdle?: () => void;
}

const STREAM_JOBS = 50; // jobs that a server allows in one stream, unless it is set to fewer
// Elements of a page start one after the other, and a browser opens few connections to a host.
const RESTART_DELAY = 20; // ms

/** Follows jobs over as few streams as possible. */
export class HttpJobClient implements JobHost, StreamHost, HttpCancelHost {
  readonly logLimit: number;
  readonly timers: Timers = new Timers();
  readonly tokens: TokenCache | null;
  readonly connectionError = null;
  connectionState: ConnectionState = "idle";
  subjectChanges = 0;
  readonly #options: HttpJobClientOptions;
  readonly #frames = new FrameScheduler();
  readonly #followedJobs = new Map<string, Job>();
  #streams: JobStream[] = [];
  #streamJobs = STREAM_JOBS;
  #cancelRestart: (() => void) | null = null;

  constructor(options: HttpJobClientOptions) {
    this.#options = options;
    this.logLimit = options.logLimit;
    this.tokens =
      options.requestToken && new TokenCache(options.requestToken, () => this.#forgetJobs());
  }

  /** Return the job with this id. Callers share it while it is followed. */
  job(jobId: string): Job {
    const followed = this.#followedJobs.get(jobId);
    if (followed) {
      return followed;
    }
    const job = new Job(jobId, this);
    if (!isJobId(jobId)) {
      job.handleRefused("invalid_request", `invalid job id: ${jobId}`);
    }
    return job;
  }

  /**
   * Cancel a job.
   *
   * @throws CancelRefused if the server refuses, or does not answer in time.
   */
  cancel(jobId: string, options: CancelOptions = {}): Promise<CancelResult> {
    return cancelOverHttp(jobId, options, this);
  }

  pause(delay: number): Promise<void> {
    return new Promise((resolve) => this.timers.after(delay, resolve));
  }

  /** Retry refused jobs and lost streams now. */
  reconnect(): void {
    this.tokens?.discard();
    for (const job of this.#followedJobs.values()) {
      if (job.isRefused) {
        job.markDisconnected();
      }
    }
    this.#scheduleRestart();
  }

  onFollow(job: Job): void {
    if (isJobId(job.jobId) && !this.#followedJobs.has(job.jobId)) {
      if (this.#followedJobs.size === 0) {
        globalThis.addEventListener?.("online", this.#retryNow);
      }
      this.#followedJobs.set(job.jobId, job);
      this.#scheduleRestart();
    }
  }

  onUnfollow(job: Job): void {
    // An element that moves within the page leaves and returns in the same tick.
    this.timers.after(0, () => {
      if (!job.isFollowed && this.#followedJobs.get(job.jobId) === job) {
        this.#followedJobs.delete(job.jobId);
        job.reset();
        this.#scheduleRestart();
      }
    });
  }

  onChange(job: Job): void {
    if (job.isFollowed) {
      this.#frames.schedule(job.notify);
    }
  }

  onConnect(): void {
    this.#setConnection("connected");
  }

  onTooManyJobs(count: number): void {
    this.#streamJobs = Math.min(this.#streamJobs, Math.ceil(count / 2));
    this.#scheduleRestart();
  }

  onDisconnect(): void {
    this.#setConnection("reconnecting");
  }

  serverUrl(token: IssuedToken | null): URL {
    const url = new URL(this.#options.baseUrl ?? token?.serverUrl ?? "/", pageUrl());
    url.pathname = url.pathname.replace(/\/*$/, "/");
    url.search = "";
    url.hash = "";
    return url;
  }

  /** The next requests belong to another user, who may not see what the previous one saw. */
  #forgetJobs(): void {
    this.subjectChanges += 1;
    this.#stopStreams(); // they bring messages with the previous user's token
    for (const job of this.#followedJobs.values()) {
      job.reset();
    }
    this.#scheduleRestart();
  }

  #scheduleRestart(): void {
    this.#cancelRestart ??= this.timers.after(RESTART_DELAY, () => {
      this.#cancelRestart = null;
      this.#restart();
    });
  }

  /** Open streams for the jobs that are followed now. They resume where the previous ones were. */
  #restart(): void {
    this.#stopStreams();
    const jobs = [...this.#followedJobs.values()].filter(isOpen);
    this.#streams = chunks(jobs, this.#streamJobs).map((part) => new JobStream(part, this));
    if (this.connectionState === "idle" && jobs.length > 0) {
      this.#setConnection("connecting");
    }
    for (const stream of this.#streams) {
      void stream.run();
    }
    if (this.#followedJobs.size === 0) {
      globalThis.removeEventListener?.("online", this.#retryNow);
      this.connectionState = "idle";
      this.#options.onIdle?.();
    }
  }

  #stopStreams(): void {
    for (const stream of this.#streams) {
      stream.stop();
    }
  }

  readonly #retryNow = (): void => {
    for (const stream of this.#streams) {
      stream.retryNow();
    }
  };

  #setConnection(state: ConnectionState): void {
    if (state !== this.connectionState) {
      this.connectionState = state;
      for (const job of this.#followedJobs.values()) {
        this.onChange(job);
      }
    }
  }
}

function pageUrl(): string | undefined {
  return typeof document === "undefined" ? undefined : document.baseURI;
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  const count = Math.ceil(items.length / size);
  return Array.from({ length: count }, (_, index) => items.slice(index * size, (index + 1) * size));
}
