/** Svelte stores. They only subscribe to the client's stores; all logic is in the client. */

import { getContext, setContext } from "svelte";
import { derived, type Readable, readable } from "svelte/store";
import { CancelAction, type CancelJob, type CancelState } from "./cancelAction.js";
import type { JobClient } from "./client.js";
import type { Connection } from "./connection.js";
import { type EndCallbacks, EndReporter } from "./endings.js";
import type { FeedState } from "./feedView.js";
import {
  type FeedQuery,
  followedFeed,
  keyOfQuery,
  NO_FEED_STATE,
  unfollowedFeed,
} from "./followedFeed.js";
import { type FollowedJob, followedJob, unfollowedJob } from "./followedJob.js";
import type { Store } from "./store.js";

export type { CancelJob, CancelState } from "./cancelAction.js";
export type { Problem } from "./connectionProblem.js";
export type { EndCallbacks } from "./endings.js";
export type { FeedOptions, FeedStatus } from "./feedFilter.js";
export type { FeedState } from "./feedView.js";
export type { FeedQuery } from "./followedFeed.js";
export type { FollowedJob, JobOutcome, JobPhase } from "./followedJob.js";
export type { JobSummary } from "./jobSummary.js";

type JobId = string | null | undefined;

const KEY = Symbol("jobcast");

/** Provide a client to a component and those within it. The caller closes the client. */
export function setJobClient(client: JobClient): JobClient {
  return setContext(KEY, client);
}

/**
 * Return the client of a component around this one.
 *
 * @throws Error without `setJobClient`.
 */
export function getJobClient(): JobClient {
  const client = getContext<JobClient | undefined>(KEY);
  if (!client) {
    throw new Error("the stores of @jobcast/client/svelte need setJobClient in a component above");
  }
  return client;
}

/** Return the state of the connection, as a store. */
export function connectionStore(client: JobClient = getJobClient()): Readable<Connection> {
  return toReadable(client.connection, client.connection.getSnapshot());
}

/**
 * Return the state of a job, as a store that follows the job while it has subscribers. The id may be
 * a store; without an id (`null`, `undefined` or `""`) it waits for one.
 *
 * @example
 * const job = jobStore<Report>(jobId);
 */
export function jobStore<Result = unknown>(
  jobId: JobId | Readable<JobId>,
  options: EndCallbacks<Result> & { readonly client?: JobClient } = {},
): Readable<FollowedJob<Result>> {
  const client = options.client ?? getJobClient();
  const reporter = new EndReporter(() => options);
  const ids = typeof jobId === "object" && jobId !== null ? jobId : readable(jobId);
  return derived(
    ids,
    (id, set) => {
      const store = followedJob<Result>(client, id);
      const stops = [
        toReadable(store, store.getSnapshot()).subscribe(set),
        reporter.observe(store),
      ];
      return () => {
        for (const stop of stops) {
          stop();
        }
      };
    },
    unfollowedJob<Result>(typeof jobId === "string" ? jobId : null),
  );
}

/** The request to cancel a job, as a store, and the function that sends it. */
export interface CancelStore extends Readable<CancelState> {
  /** Send the request. It never rejects. */
  readonly cancel: CancelJob;
}

/**
 * Return the request to cancel a job, as a store with a function that sends it.
 *
 * @example
 * const request = cancelStore(jobId);
 * // <button disabled={$request.isPending} onclick={() => request.cancel()}>Cancel</button>
 */
export function cancelStore(
  jobId: string,
  options: { readonly client?: JobClient } = {},
): CancelStore {
  const action = new CancelAction(options.client ?? getJobClient(), jobId);
  return { ...toReadable(action, action.getSnapshot()), cancel: action.cancel };
}

/**
 * Return the jobs of a feed, as a store that follows the feed while it has subscribers. The query may
 * be a store; without a feed it waits for one.
 *
 * @example
 * const feed = jobsStore({ feed: "mine", status: "running" });
 */
export function jobsStore(
  query: FeedQuery | Readable<FeedQuery>,
  options: { readonly client?: JobClient } = {},
): Readable<FeedState> {
  const client = options.client ?? getJobClient();
  const queries = "subscribe" in query ? query : readable(query);
  const keys = derived(queries, keyOfQuery);
  return derived(
    keys,
    (key, set) => {
      const store = followedFeed(client, JSON.parse(key));
      return toReadable(store, store.getSnapshot()).subscribe(set);
    },
    "subscribe" in query ? NO_FEED_STATE : unfollowedFeed(query),
  );
}

function toReadable<T>(store: Store<T>, initial: T): Readable<T> {
  return readable(initial, (set) => {
    set(store.getSnapshot());
    return store.subscribe(() => set(store.getSnapshot()));
  });
}
