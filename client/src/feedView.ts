/** A feed with the options of one caller, as a store. */

import type { ConnectionState } from "./connection.js";
import { isSameProblem, type Problem } from "./connectionProblem.js";
import type { Feed } from "./feed.js";
import {
  type FeedFilter,
  type FeedOptions,
  filterOf,
  isEmptyFilter,
  limitOf,
  matches,
} from "./feedFilter.js";
import { isSameList, type JobSummary } from "./jobSummary.js";
import { Listeners, type Store } from "./store.js";

/** The jobs of a feed, and the status of the list. */
export interface FeedState {
  /** The name of the feed; empty if there is none. */
  readonly feed: string;
  /** The jobs, the newest first. A job that does not change stays the same object. */
  readonly jobs: readonly JobSummary[];
  /**
   * - `none`: there is no feed;
   * - `connecting`: the jobs are not known yet, or not all of those requested;
   * - `live`: the list is up to date;
   * - `reconnecting`: the connection was lost; the list is the last known one;
   * - `refused`: the connection or the feed is refused, see `error`;
   * - `closed`: the client is closed.
   */
  readonly status: "none" | "connecting" | "live" | "reconnecting" | "refused" | "closed";
  /** The number of jobs that match, including those that are not loaded; null if it is unknown. */
  readonly total: number | null;
  /** Whether there are older jobs than the last one in `jobs`. */
  readonly hasMore: boolean;
  /** Whether older jobs are being loaded. */
  readonly isLoadingMore: boolean;
  /**
   * Why the feed is refused, why the connection is lost or refused, or why the server cannot list the
   * jobs at the moment. The client tries again unless the status is `refused`.
   */
  readonly error: Problem | null;
  /** Show more of the older jobs: as many as `limit`. Without older jobs it does nothing. */
  readonly loadMore: () => void;
}

/** The jobs of a feed, as a store. */
export interface FeedStore extends Store<FeedState> {
  /** Show more of the older jobs: as many as `limit`. Without older jobs it does nothing. */
  readonly loadMore: () => void;
}

/** The part of the client that a view uses. */
export interface FeedViewHost {
  readonly connectionState: ConnectionState;
  readonly connectionProblem: Problem | null;
  /** Return the feed with this name, if it is followed. */
  feed(name: string): Feed | undefined;
  onSubscribe(view: FeedView): void;
  /** The last subscriber is gone. */
  onUnsubscribe(view: FeedView): void;
  /** The view wants more jobs. */
  onWant(view: FeedView): void;
}

const NO_JOBS: readonly JobSummary[] = [];

export class FeedView implements FeedStore {
  readonly name: string;
  readonly filter: FeedFilter;
  /** The number of jobs to show. */
  wanted: number;
  readonly #limit: number;
  readonly #host: FeedViewHost;
  readonly #listeners = new Listeners();
  #state: FeedState;
  #notified: FeedState | null = null;
  #matched: { readonly from: readonly JobSummary[]; readonly jobs: readonly JobSummary[] } | null =
    null;

  /** @throws TypeError or RangeError that names an invalid option. */
  constructor(name: string, options: FeedOptions, host: FeedViewHost) {
    this.name = name;
    this.filter = filterOf(options);
    this.#limit = limitOf(options);
    this.wanted = this.#limit;
    this.#host = host;
    this.#state = { ...unfollowedFeedState(name), loadMore: this.loadMore };
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    if (this.#host.connectionState === "closed") {
      return () => {};
    }
    let remove: (() => void) | null = this.#listeners.add(listener);
    this.#host.onSubscribe(this);
    return () => {
      remove?.();
      if (remove && !this.isSubscribed) {
        this.#host.onUnsubscribe(this);
      }
      remove = null;
    };
  };

  readonly getSnapshot = (): FeedState => {
    const state = this.#readState();
    if (!isSameState(state, this.#state)) {
      this.#state = state;
    }
    return this.#state;
  };

  readonly loadMore = (): void => {
    const { hasMore } = this.getSnapshot();
    if (hasMore && this.missing <= 0) {
      this.wanted += this.#limit;
      this.#host.onWant(this);
    }
  };

  get isSubscribed(): boolean {
    return this.#listeners.size > 0;
  }

  /** The number of jobs that the view wants, and that are not loaded. */
  get missing(): number {
    return this.wanted - this.getSnapshot().jobs.length;
  }

  /** Call the subscribers, if the state has changed. */
  notify(): void {
    const state = this.getSnapshot();
    if (state !== this.#notified) {
      this.#notified = state;
      this.#listeners.notify();
    }
  }

  /** Show as many jobs as at first, because the last subscriber is gone. */
  reset(): void {
    this.wanted = this.#limit;
  }

  removeListeners(): void {
    this.#listeners.clear();
  }

  #readState(): FeedState {
    const feed = this.#host.feed(this.name);
    const status = this.#statusOf(feed);
    const matching = this.#matchingJobs(feed);
    const jobs = matching.length > this.wanted ? matching.slice(0, this.wanted) : matching;
    const error = feed?.refusal ?? this.#host.connectionProblem ?? feed?.temporaryProblem ?? null;
    const hasOlder = feed?.hasOlder ?? false;
    const isComplete = feed?.isCompleteFor(this.filter) ?? false;
    return {
      feed: this.name,
      jobs: isSameList(jobs, this.#state.jobs) ? this.#state.jobs : jobs,
      status,
      total: isComplete && !hasOlder ? matching.length : (feed?.totalOf(this.filter) ?? null),
      hasMore: hasOlder || matching.length > this.wanted,
      isLoadingMore: status === "live" && hasOlder && jobs.length < this.wanted,
      error: isSameProblem(error, this.#state.error) ? this.#state.error : error,
      loadMore: this.loadMore,
    };
  }

  #matchingJobs(feed: Feed | undefined): readonly JobSummary[] {
    const from = feed?.jobs ?? NO_JOBS;
    if (isEmptyFilter(this.filter)) {
      return from;
    }
    if (this.#matched?.from !== from) {
      this.#matched = { from, jobs: from.filter((job) => matches(this.filter, job)) };
    }
    return this.#matched.jobs;
  }

  #statusOf(feed: Feed | undefined): FeedState["status"] {
    const { connectionState } = this.#host;
    if (connectionState === "closed" || connectionState === "refused") {
      return connectionState;
    }
    if (feed?.refusal) {
      return "refused";
    }
    if (!feed?.isCompleteFor(this.filter)) {
      return "connecting";
    }
    return feed.isLive ? "live" : "reconnecting";
  }
}

/** Return the state of a feed before it is followed. Without a name there is no feed. */
export function unfollowedFeedState(name: string): FeedState {
  return {
    feed: name,
    jobs: NO_JOBS,
    status: name === "" ? "none" : "connecting",
    total: null,
    hasMore: false,
    isLoadingMore: false,
    error: null,
    loadMore: () => {},
  };
}

function isSameState(one: FeedState, other: FeedState): boolean {
  const fields = Object.keys(one) as (keyof FeedState)[];
  return fields.every((field) => one[field] === other[field]);
}
