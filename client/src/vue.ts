/** Vue composables. They only subscribe to the client's stores; all logic is in the client. */

import {
  type App,
  getCurrentInstance,
  type InjectionKey,
  inject,
  type MaybeRefOrGetter,
  onMounted,
  onScopeDispose,
  type Plugin,
  type ShallowRef,
  shallowRef,
  toValue,
  watch,
} from "vue";
import { CancelAction, type CancelJob, type CancelState, NOT_REQUESTED } from "./cancelAction.js";
import { createJobClient, type JobClient } from "./client.js";
import type { Connection } from "./connection.js";
import { type EndCallbacks, EndReporter } from "./endings.js";
import type { FeedState } from "./feedView.js";
import { type FeedQuery, followedFeed, keyOfQuery, unfollowedFeed } from "./followedFeed.js";
import { type FollowedJob, followedJob, unfollowedJob } from "./followedJob.js";
import type { JobClientOptions } from "./options.js";
import type { Store } from "./store.js";

export type { CancelJob, CancelState } from "./cancelAction.js";
export type { Problem } from "./connectionProblem.js";
export type { EndCallbacks } from "./endings.js";
export type { FeedOptions, FeedStatus } from "./feedFilter.js";
export type { FeedState } from "./feedView.js";
export type { FeedQuery } from "./followedFeed.js";
export type { FollowedJob, JobOutcome, JobPhase } from "./followedJob.js";
export type { JobSummary } from "./jobSummary.js";

const KEY: InjectionKey<JobClient> = Symbol("jobcast");

/** Either a `client` that the caller owns, or the options of a client that the app owns. */
export type JobcastPluginOptions = JobClientOptions | { readonly client: JobClient };

/**
 * Provide a client to the components of an app. A client that the plugin creates is closed when the
 * app is unmounted.
 *
 * @example
 * createApp(Page).use(jobcast, { getToken }).mount("#app");
 */
export const jobcast: Plugin<[JobcastPluginOptions]> = (
  app: App,
  options: JobcastPluginOptions,
) => {
  const client = "client" in options ? options.client : createJobClient(options);
  app.provide(KEY, client);
  if (!("client" in options)) {
    app.onUnmount(() => client.close());
  }
};

/**
 * Return the app's client.
 *
 * @throws Error without the plugin.
 */
export function useJobClient(): JobClient {
  const client = inject(KEY, null);
  if (!client) {
    throw new Error("the composables of @jobcast/client/vue need app.use(jobcast, options)");
  }
  return client;
}

/** Return the state of the connection. */
export function useConnection(): Readonly<ShallowRef<Connection>> {
  const { connection } = useJobClient();
  const value = refOf(connection.getSnapshot());
  whileMounted(() => subscribed(connection, value));
  return value;
}

/**
 * Follow a job while the component is mounted, and return its state. The id may be a ref or a getter;
 * without an id (`null`, `undefined` or `""`) the composable waits for one.
 *
 * @example
 * const job = useJob<Report>(() => props.jobId);
 */
export function useJob<Result = unknown>(
  jobId: MaybeRefOrGetter<string | null | undefined>,
  callbacks: EndCallbacks<Result> = {},
): Readonly<ShallowRef<FollowedJob<Result>>> {
  const client = useJobClient();
  const value = refOf(unfollowedJob<Result>(toValue(jobId)));
  const reporter = new EndReporter(() => callbacks);
  whileMounted(() =>
    watch(
      () => toValue(jobId),
      (id, _, onCleanup) => {
        const store = followedJob<Result>(client, id);
        onCleanup(subscribed(store, value));
        onCleanup(reporter.observe(store));
      },
      { immediate: true, flush: "sync" },
    ),
  );
  return value;
}

/** The request to cancel a job, and the function that sends it. */
export interface JobCancellation {
  /** Send the request. It never rejects. */
  readonly cancel: CancelJob;
  /** How the latest request went. */
  readonly request: Readonly<ShallowRef<CancelState>>;
}

/**
 * Cancel a job. The id may be a ref or a getter.
 *
 * @example
 * const { cancel, request } = useCancelJob(() => props.jobId);
 */
export function useCancelJob(jobId: MaybeRefOrGetter<string | null | undefined>): JobCancellation {
  const client = useJobClient();
  const request = refOf(NOT_REQUESTED);
  let action = new CancelAction(client, toValue(jobId));
  whileMounted(() =>
    watch(
      () => toValue(jobId),
      (id, _, onCleanup) => {
        action = new CancelAction(client, id);
        onCleanup(subscribed(action, request));
      },
      { immediate: true, flush: "sync" },
    ),
  );
  return { cancel: (options) => action.cancel(options), request };
}

/**
 * Follow a feed while the component is mounted, and return its jobs. The query may be a ref or a
 * getter; without a feed the composable waits for one.
 *
 * @example
 * const feed = useJobs(() => ({ feed: "mine", status: props.status }));
 */
export function useJobs(query: MaybeRefOrGetter<FeedQuery>): Readonly<ShallowRef<FeedState>> {
  const client = useJobClient();
  const value = refOf(unfollowedFeed(toValue(query)));
  whileMounted(() =>
    watch(
      () => keyOfQuery(toValue(query)),
      (key, _, onCleanup) => onCleanup(subscribed(followedFeed(client, JSON.parse(key)), value)),
      { immediate: true, flush: "sync" },
    ),
  );
  return value;
}

/** Return a ref. The type of `shallowRef(value)` would depend on whether `T` is a ref itself. */
function refOf<T>(value: T): ShallowRef<T> {
  const ref = shallowRef<T>() as ShallowRef<T>;
  ref.value = value;
  return ref;
}

function subscribed<T>(store: Store<T>, value: ShallowRef<T>): () => void {
  const update = (): void => {
    value.value = store.getSnapshot();
  };
  update();
  return store.subscribe(update);
}

/** Run `start` when the component is mounted, never in server rendering, and its result at the end. */
function whileMounted(start: () => () => void): void {
  let stop = (): void => {};
  const run = (): void => {
    stop = start();
  };
  getCurrentInstance() ? onMounted(run) : run();
  onScopeDispose(() => stop());
}
