"use client";

/** React hooks. They only subscribe to the client's stores; all logic is in the client. */

import {
  type Context,
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useContext,
  useEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { CancelAction, type CancelJob, type CancelState, NOT_REQUESTED } from "./cancelAction.js";
import { createJobClient, type JobClient } from "./client.js";
import type { Connection } from "./connection.js";
import { type EndCallbacks, EndReporter } from "./endings.js";
import type { FeedState } from "./feedView.js";
import { type FeedQuery, followedFeed, keyOfQuery, unfollowedFeed } from "./followedFeed.js";
import { type FollowedJob, followedJob, NO_CONNECTION, unfollowedJob } from "./followedJob.js";
import { emptyState, type JobState } from "./job.js";
import { checkOptions, type JobClientOptions } from "./options.js";
import type { Store } from "./store.js";

export type { CancelJob, CancelState } from "./cancelAction.js";
export type { Problem } from "./connectionProblem.js";
export type { EndCallbacks } from "./endings.js";
export type { FeedOptions, FeedStatus } from "./feedFilter.js";
export type { FeedState } from "./feedView.js";
export type { FeedQuery } from "./followedFeed.js";
export type { FollowedJob, JobOutcome, JobPhase } from "./followedJob.js";
export type { JobSummary } from "./jobSummary.js";

const JobcastContext: Context<JobClient | null> = createContext<JobClient | null>(null);

/** Either a `client` that the caller owns, or the `options` of a client that the provider owns. */
export type JobcastProviderProps =
  | { readonly client: JobClient; readonly options?: never; readonly children?: ReactNode }
  | { readonly options: JobClientOptions; readonly client?: never; readonly children?: ReactNode };

/**
 * Provide a client to the hooks below it. With `options` the provider creates the client on its first
 * render and closes it when it unmounts; of later options only `getToken` takes effect.
 *
 * @example
 * <JobcastProvider options={{ getToken }}>
 *   <Jobs />
 * </JobcastProvider>
 */
export function JobcastProvider({ client, options, children }: JobcastProviderProps): ReactElement {
  if (client) {
    return createElement(JobcastContext.Provider, { value: client }, children);
  }
  return createElement(OwnedClientProvider, { options }, children);
}

function OwnedClientProvider(props: {
  readonly options: JobClientOptions;
  readonly children?: ReactNode;
}): ReactElement {
  const latest = useRef(props.options);
  useEffect(() => {
    latest.current = props.options;
  });
  const [createClient] = useState(() => {
    const options = props.options;
    checkOptions(options); // the wrapper below would hide an invalid getToken
    const getToken = options.getToken && (() => latest.current.getToken?.());
    return () => createJobClient({ ...options, getToken });
  });
  const [client, setClient] = useState(createClient);
  const closing = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => {
    // Strict mode remounts in the same tick; a hidden tree remounts later.
    clearTimeout(closing.current);
    if (client.connection.getSnapshot().state === "closed") {
      setClient(createClient());
    }
    return () => {
      closing.current = setTimeout(() => client.close(), 0);
    };
  }, [client, createClient]);
  return createElement(JobcastContext.Provider, { value: client }, props.children);
}

/**
 * Return the provider's client.
 *
 * @throws Error without a `<JobcastProvider>`.
 */
export function useJobClient(): JobClient {
  const client = useContext(JobcastContext);
  if (!client) {
    throw new Error("the hooks of @jobcast/client/react need a <JobcastProvider> above them");
  }
  return client;
}

/** Return the state of the connection. */
export function useConnection(): Connection {
  const { connection } = useJobClient();
  return useSyncExternalStore(connection.subscribe, connection.getSnapshot, serverConnection);
}

/** Options of `useJob`. The functions may be new ones on each render. */
export interface UseJobOptions<Result> extends EndCallbacks<Result> {
  /** Whether to follow the job. Default: true. */
  readonly enabled?: boolean | undefined;
}

/** Options of `useJob` with a selection. */
export interface SelectJobOptions<Result, Selected> extends UseJobOptions<Result> {
  /** Returns what the component shows. The component renders only when this value changes. */
  readonly select: (job: FollowedJob<Result>) => Selected;
}

/**
 * Follow a job while the component is mounted, and return its state. Without an id (`null`,
 * `undefined` or `""`) it waits for one.
 *
 * @example
 * const { progress, message, refusal } = useJob(jobId);
 * @example
 * const percentage = useJob(jobId, { select: (job) => job.percentage });
 */
export function useJob<Result = unknown, Selected = FollowedJob<Result>>(
  jobId: string | null | undefined,
  options: SelectJobOptions<Result, Selected>,
): Selected;
export function useJob<Result = unknown>(
  jobId: string | null | undefined,
  options?: UseJobOptions<Result>,
): FollowedJob<Result>;
export function useJob<Result>(
  jobId: string | null | undefined,
  options: UseJobOptions<Result> & Partial<SelectJobOptions<Result, unknown>> = {},
): unknown {
  const client = useJobClient();
  const id = options.enabled === false ? null : jobId;
  const store = useMemo(
    () => withServerSnapshot(followedJob<Result>(client, id), unfollowedJob<Result>(id)),
    [client, id],
  );
  useEndCallbacks(store, options);
  return useSelected(store, options.select ?? selectAll);
}

/** The state of a job as `useJobSocket` returns it. */
export type JobSocket = FollowedJob;

/** Follow a job: `useJob` without options. */
export const useJobSocket = (jobId: string | null | undefined): JobSocket => useJob(jobId);

/** The request to cancel a job, and the function that sends it. */
export type JobCancellation = CancelState & { readonly cancel: CancelJob };

/**
 * Cancel a job: `cancel` sends the request and never rejects; `isPending`, `result` and `error` are
 * those of the latest request.
 *
 * @example
 * const job = useJob(jobId);
 * const { cancel, isPending, error } = useCancelJob(jobId);
 * return (
 *   <button disabled={!job.isCancellable || isPending} onClick={() => void cancel()}>
 *     Cancel
 *   </button>
 * );
 */
export function useCancelJob(jobId: string | null | undefined): JobCancellation {
  const client = useJobClient();
  const action = useMemo(() => new CancelAction(client, jobId), [client, jobId]);
  const state = useSyncExternalStore(action.subscribe, action.getSnapshot, notRequested);
  return useMemo(() => ({ ...state, cancel: action.cancel }), [action, state]);
}

/**
 * Follow a feed while the component is mounted, and return its jobs. Without a feed it waits for one.
 *
 * @example
 * const { jobs, hasMore, loadMore } = useJobs({ feed: "mine", status: "running" });
 */
export function useJobs(query: FeedQuery): FeedState;
/**
 * Follow several jobs and return their states in the order of the ids. The component renders at most
 * once per frame, however many of the jobs change.
 */
export function useJobs(jobIds: readonly string[]): readonly JobState[];
export function useJobs(jobs: FeedQuery | readonly string[]): FeedState | readonly JobState[] {
  const client = useJobClient();
  const key = "feed" in jobs ? keyOfQuery(jobs) : JSON.stringify(jobs);
  const store = useMemo(() => openJobs(client, JSON.parse(key)), [client, key]);
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
}

function openJobs(
  client: JobClient,
  jobs: FeedQuery | readonly string[],
): HydratableStore<FeedState | readonly JobState[]> {
  return "feed" in jobs
    ? withServerSnapshot(followedFeed(client, jobs), unfollowedFeed(jobs))
    : combineJobStores(client, jobs);
}

interface HydratableStore<T> extends Store<T> {
  /** Return the value for server rendering and hydration. */
  readonly getServerSnapshot: () => T;
}

function withServerSnapshot<T>(store: Store<T>, serverSnapshot: T): HydratableStore<T> {
  const { subscribe, getSnapshot } = store;
  return { subscribe, getSnapshot, getServerSnapshot: () => serverSnapshot };
}

function combineJobStores(
  client: JobClient,
  jobIds: readonly string[],
): HydratableStore<readonly JobState[]> {
  const stores = jobIds.map((jobId) => client.job(jobId));
  const serverSnapshot = jobIds.map(emptyState);
  let states: readonly JobState[] = [];
  return {
    subscribe(listener) {
      const stops = [...new Set(stores)].map((store) => store.subscribe(listener));
      return () => {
        for (const stop of stops) {
          stop();
        }
      };
    },
    getSnapshot() {
      const now = stores.map((store) => store.getSnapshot());
      const isSame =
        now.length === states.length && now.every((state, index) => state === states[index]);
      states = isSame ? states : now;
      return states;
    },
    getServerSnapshot: () => serverSnapshot,
  };
}

const serverConnection = (): Connection => NO_CONNECTION;

const notRequested = (): CancelState => NOT_REQUESTED;

const selectAll = <T>(value: T): T => value;

/** Call the latest callbacks when the job ends, even if the selected value stays the same. */
function useEndCallbacks<Result>(
  store: Store<FollowedJob<Result>>,
  callbacks: EndCallbacks<Result>,
): void {
  const latest = useRef(callbacks);
  const [reporter] = useState(() => new EndReporter<Result>(() => latest.current));
  useEffect(() => {
    latest.current = callbacks;
  });
  const isObserved = Boolean(callbacks.onComplete || callbacks.onError || callbacks.onCancel);
  useEffect(
    () => (isObserved ? reporter.observe(store) : undefined),
    [reporter, store, isObserved],
  );
}

/** Return the selected part of a store's value. An equal part is the same object as before. */
function useSelected<T, Selected>(
  store: HydratableStore<T>,
  select: (value: T) => Selected,
): Selected {
  const rendered = useRef<{ readonly value: Selected } | null>(null);
  const [getSelected, getServerSelected] = useMemo(() => {
    let last: { readonly from: T; readonly value: Selected } | null = null;
    const getSelected = (from: T): Selected => {
      if (last === null || last.from !== from) {
        const before = last ?? rendered.current;
        const value = select(from);
        last = { from, value: before && isEqual(before.value, value) ? before.value : value };
      }
      return last.value;
    };
    return [
      () => getSelected(store.getSnapshot()),
      () => getSelected(store.getServerSnapshot()),
    ] as const;
  }, [store, select]);
  const value = useSyncExternalStore(store.subscribe, getSelected, getServerSelected);
  useEffect(() => {
    rendered.current = { value };
  }, [value]);
  return value;
}

/** Compare two selections: values, or plain objects and arrays of equal values. */
function isEqual(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) {
    return true;
  }
  if (!isPlain(one) || !isPlain(other) || Array.isArray(one) !== Array.isArray(other)) {
    return false;
  }
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length &&
    keys.every((key) => Object.hasOwn(other, key) && Object.is(one[key], other[key]))
  );
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) {
    return false;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === Array.prototype;
}
