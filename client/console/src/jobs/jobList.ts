/** The jobs of the list: those that the user sent, and those followed by hand. */

import { isRecord, messageOf, textOf } from "../lib/records";
import { recall, remember } from "../lib/storage";
import { Value } from "../lib/store";
import * as api from "../session/api";
import { leave } from "../session/session";

export interface ListedJob extends api.SentJob {
  /** Whether it is in the server's list, and not only in this browser's. */
  readonly sent: boolean;
}

export interface JobList {
  readonly state: "loading" | "ready";
  readonly jobs: readonly ListedJob[];
  /** Why the server's list could not be had the last time. */
  readonly problem: string | null;
}

interface Followed {
  readonly jobId: string;
  readonly at: string;
}

const FOLLOWED_LIMIT = 100;

export class JobLists {
  readonly list = new Value<JobList>({ state: "loading", jobs: [], problem: null });
  readonly #key: string;
  #sent: readonly api.SentJob[] = [];
  #followed: readonly Followed[] = [];
  #asks = 0;
  #tabs: BroadcastChannel | null = null;

  constructor(user: string) {
    this.#key = `jobcast.followed.${user}`;
    this.#followed = followedIn(recall(this.#key));
    this.#show("loading", null);
  }

  /** Keeps the list as it is elsewhere. Returns what ends that. */
  start(): () => void {
    this.#tabs =
      typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel("jobcast.jobs");
    const ending = new AbortController();
    const { signal } = ending;
    const refresh = (): void => void this.refresh();
    this.#tabs?.addEventListener("message", refresh, { signal });
    window.addEventListener("focus", refresh, { signal });
    window.addEventListener("online", refresh, { signal });
    window.addEventListener("storage", ({ key }) => key === this.#key && this.#recall(), {
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
    const ask = ++this.#asks;
    try {
      const sent = await api.getJobs();
      if (ask === this.#asks) {
        this.#sent = sent;
        this.#show("ready", null);
      }
    } catch (error) {
      if (error instanceof api.ApiError && error.status === 401) {
        leave();
      } else if (ask === this.#asks) {
        this.#show("ready", messageOf(error));
      }
    }
  }

  /** @throws ApiError */
  async startJob(name: string, file: File | null): Promise<api.SentJob> {
    const job = await attended(api.startJob(name, file));
    this.#asks += 1; // a list that is on its way does not know of it
    this.#sent = [job, ...this.#sent.filter(({ jobId }) => jobId !== job.jobId)];
    this.#show("ready", this.list.getSnapshot().problem);
    this.#tabs?.postMessage("changed");
    return job;
  }

  /** Puts a job into the list that somebody, or something, else has sent. */
  follow(jobId: string): void {
    if (!this.list.getSnapshot().jobs.some((job) => job.jobId === jobId)) {
      const followed = { jobId, at: new Date().toISOString() };
      this.#keep([followed, ...this.#followed].slice(0, FOLLOWED_LIMIT));
    }
  }

  /** @throws ApiError */
  async remove(jobId: string): Promise<void> {
    const isSent = this.#sent.some((job) => job.jobId === jobId);
    if (isSent) {
      await attended(api.removeJob(jobId));
      this.#asks += 1;
      this.#sent = this.#sent.filter((job) => job.jobId !== jobId);
    }
    this.#keep(this.#followed.filter((job) => job.jobId !== jobId));
    this.#tabs?.postMessage("changed");
  }

  #keep(followed: readonly Followed[]): void {
    this.#followed = followed;
    remember(this.#key, followed);
    this.#show();
  }

  #recall(): void {
    this.#followed = followedIn(recall(this.#key));
    this.#show();
  }

  #show(
    state = this.list.getSnapshot().state,
    problem: string | null = this.list.getSnapshot().problem,
  ): void {
    this.list.set({ state, problem, jobs: listed(this.#sent, this.#followed) });
  }
}

/** All jobs once, the newest first. */
export function listed(
  sent: readonly api.SentJob[],
  followed: readonly Followed[],
): readonly ListedJob[] {
  const known = new Set(sent.map(({ jobId }) => jobId));
  const others = followed
    .filter(({ jobId }) => !known.has(jobId))
    .map(({ jobId, at }) => ({ jobId, task: null, title: null, sentAt: at, sent: false }));
  return [...sent.map((job) => ({ ...job, sent: true })), ...others].sort(
    (one, other) => timeOf(other) - timeOf(one),
  );
}

function timeOf({ sentAt }: ListedJob): number {
  return sentAt === null ? 0 : Date.parse(sentAt);
}

function followedIn(value: unknown): readonly Followed[] {
  const list: readonly unknown[] = Array.isArray(value) ? value : [];
  return list.flatMap((one) => {
    const [jobId, at] = [textOf(one, "jobId"), textOf(one, "at")];
    return isRecord(one) && jobId !== null && at !== null ? [{ jobId, at }] : [];
  });
}

/** A session that is over leads back to the sign-in, whatever was asked. */
async function attended<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof api.ApiError && error.status === 401) {
      leave();
    }
    throw error;
  }
}
