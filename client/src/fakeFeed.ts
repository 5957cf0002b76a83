/** The server's side of a feed in tests. */

import { type FeedFilter, matches } from "./feedFilter.js";
import { compareSummaries, type JobSummary, toSummary } from "./jobSummary.js";
import { parse } from "./parse.js";
import type { FeedJobMessage, JobSummaryMessage, JoinFeedRequest, Messages } from "./protocol.js";

/** The fields of a job in a feed that a test sets. */
export type FakeSummary = Partial<Omit<JobSummaryMessage, "job_id" | "epoch" | "seq">>;

/** The server's side of a feed. Jobs that a test adds before a client follows are its snapshot. */
export interface FakeFeed {
  readonly feed: string;
  /** Whether a client follows the feed. */
  readonly isFollowed: boolean;
  /** Add a job, or change fields of one. A new job is `queued` and the newest one by default. */
  put(jobId: string, fields?: FakeSummary): FakeFeed;
  /** Remove a job. */
  remove(jobId: string): FakeFeed;
  /** Refuse the client that follows the feed, and later ones: `feed_not_allowed`, ... */
  refuse(code?: string, message?: string): FakeFeed;
}

type Send = <N extends "feed_snapshot" | "feed_job" | "feed_gone" | "feed_left">(
  name: N,
  message: Messages[N],
) => void;

const EPOCH = "fake"; // a test has one record per job
let latest = 0; // ms: jobs that are created later are newer, also within one ms

export class FakeFeedRecord implements FakeFeed {
  readonly feed: string;
  readonly #send: Send;
  readonly #jobs = new Map<string, FeedJobMessage>();
  #filter: FeedFilter | null = null; // of the client that follows
  /** The oldest job of the snapshot, if there are older ones. */
  #oldest: JobSummary | null = null;
  #refusal: { readonly code: string; readonly message: string } | null = null;

  constructor(feed: string, send: Send) {
    this.feed = feed;
    this.#send = send;
  }

  get isFollowed(): boolean {
    return this.#filter !== null;
  }

  put(jobId: string, fields: FakeSummary = {}): FakeFeed {
    const known = this.#jobs.get(jobId);
    const job = parse("feed_job", {
      status: "queued",
      created_at: known?.created_at ?? nextTime(),
      ...known,
      ...fields,
      feed: this.feed,
      job_id: jobId,
      epoch: EPOCH,
      seq: (known?.seq ?? 0) + 1,
    });
    this.#jobs.set(jobId, job);
    if (this.#isShown(job)) {
      this.#send("feed_job", job);
    } else if (known && this.#isShown(known)) {
      this.#send("feed_gone", { feed: this.feed, job_id: jobId });
    }
    return this;
  }

  remove(jobId: string): FakeFeed {
    const job = this.#jobs.get(jobId);
    this.#jobs.delete(jobId);
    if (job && this.#isShown(job)) {
      this.#send("feed_gone", { feed: this.feed, job_id: jobId });
    }
    return this;
  }

  refuse(code = "feed_not_allowed", message = "the token does not allow this feed"): FakeFeed {
    this.#refusal = { code, message };
    if (this.isFollowed) {
      this.leave();
      this.#send("feed_left", { feed: this.feed, code, message });
    }
    return this;
  }

  /** Answer a request, as the server does: the acknowledgement, then the jobs. */
  join(request: JoinFeedRequest, done: (ack: Messages["join_feed.ack"]) => void): void {
    if (this.#refusal) {
      done({ ok: false, ...this.#refusal });
      return;
    }
    const reset = request.after === undefined;
    this.#filter = (reset ? request.filter : this.#filter) ?? {};
    const jobs = this.#matchingJobs();
    done({ ok: true, feed: this.feed, total: jobs.length });
    const start = jobs.findIndex((job) => job.job_id === request.after) + 1;
    const page = jobs.slice(start, start + (request.limit ?? 100));
    const last = page.at(-1);
    const hasOlder = start + page.length < jobs.length;
    this.#oldest = hasOlder && last ? toSummary(last) : null;
    const cursor = hasOlder && last ? { cursor: last.job_id } : {};
    this.#send("feed_snapshot", { feed: this.feed, jobs: page, reset, last: true, ...cursor });
  }

  leave(): void {
    this.#filter = null;
    this.#oldest = null;
  }

  #matchingJobs(): FeedJobMessage[] {
    const filter = this.#filter ?? {};
    return [...this.#jobs.values()]
      .map((message) => ({ message, job: toSummary(message) }))
      .filter(({ job }) => matches(filter, job))
      .sort((one, other) => compareSummaries(one.job, other.job))
      .map(({ message }) => message);
  }

  /** Whether the client that follows has the job. */
  #isShown(message: FeedJobMessage): boolean {
    const job = toSummary(message);
    const isInWindow = this.#oldest === null || compareSummaries(job, this.#oldest) <= 0;
    return this.#filter !== null && matches(this.#filter, job) && isInWindow;
  }
}

function nextTime(): string {
  latest = Math.max(Date.now(), latest + 1);
  return new Date(latest).toISOString();
}
