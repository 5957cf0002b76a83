/** The job list: jobs that the user sent, and jobs that the user follows by id. */

import { ApiError } from "../lib/http";
import { readStorage, writeStorage } from "../lib/storage";
import { WritableStore } from "../lib/store";
import { errorMessage, isRecord, stringField } from "../lib/untrusted";
import type { Session } from "../session/session";

export interface SentJob {
  readonly jobId: string;
  readonly task: string | null;
  readonly title: string | null;
  readonly sentAt: string | null;
}

/** The server's list of the jobs that the user has sent. Its functions throw `ApiError`. */
export interface JobSource {
  readonly getJobs: () => Promise<readonly SentJob[]>;
  readonly removeJob: (jobId: string) => Promise<void>;
}

const NO_SOURCE: JobSource = {
  getJobs: async () => [],
  removeJob: async () => undefined,
};

export interface ListedJob extends SentJob {
  /** Whether the server lists the job, rather than only this browser. */
  readonly sent: boolean;
}

export interface JobList {
  readonly state: "loading" | "ready";
  readonly jobs: readonly ListedJob[];
  /** Why the last request for the server's list failed. */
  readonly problem: string | null;
}

interface Followed {
  readonly jobId: string;
  readonly at: string;
}

const FOLLOWED_LIMIT = 100;

export class JobListStore {
  readonly list = new WritableStore<JobList>({ state: "loading", jobs: [], problem: null });
  readonly #key: string;
  #sent: readonly SentJob[] = [];
  #followed: readonly Followed[] = [];
  readonly #session: Session;
  readonly #source: JobSource;
  #requests = 0;
  #tabs: BroadcastChannel | null = null;

  constructor(user: string, session: Session, source: JobSource = NO_SOURCE) {
    this.#session = session;
    this.#source = source;
    this.#key = `jobcast.followed.${user}`;
    this.#followed = parseFollowed(readStorage(this.#key));
    this.#publish("loading", null);
  }

  /** Keep the list in sync with the server and other tabs. Returns a function that stops it. */
  start(): () => void {
    this.#tabs =
      typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("jobcast.jobs");
    const ending = new AbortController();
    const { signal } = ending;
    const refresh = (): void => void this.refresh();
    this.#tabs?.addEventListener("message", refresh, { signal });
    window.addEventListener("focus", refresh, { signal });
    window.addEventListener("online", refresh, { signal });
    window.addEventListener("storage", ({ key }) => key === this.#key && this.#readStorage(), {
      signal,
    });
    refresh();
    return () => {
      ending.abort();
      this.#tabs?.close();
      this.#tabs = null;
    };
  }

  async refresh(): Promise<void> {
    const request = ++this.#requests;
    try {
      const sent = await this.#source.getJobs();
      if (request === this.#requests) {
        this.#sent = sent;
        this.#publish("ready", null);
      }
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.#session.expire();
      } else if (request === this.#requests) {
        this.#publish("ready", errorMessage(error));
      }
    }
  }

  /** Add a job that the user has just sent. */
  addSent(job: SentJob): void {
    this.#requests += 1; // discard a list that was requested before
    this.#sent = [job, ...this.#sent.filter(({ jobId }) => jobId !== job.jobId)];
    this.#publish("ready", this.list.getSnapshot().problem);
    this.#tabs?.postMessage("changed");
  }

  /** Add a job that another client sent. */
  follow(jobId: string): void {
    if (!this.list.getSnapshot().jobs.some((job) => job.jobId === jobId)) {
      const followed = { jobId, at: new Date().toISOString() };
      this.#setFollowed([followed, ...this.#followed].slice(0, FOLLOWED_LIMIT));
    }
  }

  /** @throws ApiError */
  async remove(jobId: string): Promise<void> {
    const isSent = this.#sent.some((job) => job.jobId === jobId);
    if (isSent) {
      await this.#expireOn401(this.#source.removeJob(jobId));
      this.#requests += 1;
      this.#sent = this.#sent.filter((job) => job.jobId !== jobId);
    }
    this.#setFollowed(this.#followed.filter((job) => job.jobId !== jobId));
    this.#tabs?.postMessage("changed");
  }

  /** Wait for a request. After a 401, show the sign-in. */
  async #expireOn401(answer: Promise<void>): Promise<void> {
    try {
      await answer;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.#session.expire();
      }
      throw error;
    }
  }

  #setFollowed(followed: readonly Followed[]): void {
    this.#followed = followed;
    writeStorage(this.#key, followed);
    this.#publish();
  }

  #readStorage(): void {
    this.#followed = parseFollowed(readStorage(this.#key));
    this.#publish();
  }

  #publish(
    state = this.list.getSnapshot().state,
    problem: string | null = this.list.getSnapshot().problem,
  ): void {
    this.list.set({ state, problem, jobs: mergeJobs(this.#sent, this.#followed) });
  }
}

/** Merge both lists without duplicates, newest first. */
export function mergeJobs(
  sent: readonly SentJob[],
  followed: readonly Followed[],
): readonly ListedJob[] {
  const known = new Set(sent.map(({ jobId }) => jobId));
  const others = followed
    .filter(({ jobId }) => !known.has(jobId))
    .map(({ jobId, at }) => ({ jobId, task: null, title: null, sentAt: at, sent: false }));
  return [...sent.map((job) => ({ ...job, sent: true })), ...others].sort(
    (one, other) => sentTime(other) - sentTime(one),
  );
}

function sentTime({ sentAt }: ListedJob): number {
  return sentAt === null ? 0 : Date.parse(sentAt);
}

function parseFollowed(value: unknown): readonly Followed[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : [];
  return list.flatMap((one) => {
    const [jobId, at] = [stringField(one, "jobId"), stringField(one, "at")];
    return isRecord(one) && jobId !== null && at !== null ? [{ jobId, at }] : [];
  });
}
