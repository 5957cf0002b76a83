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
import { createJobClient, type JobClient } from "./client.js";
import { type Connection, UNKNOWN_SERVER } from "./connection.js";
import { emptyState, type JobState } from "./job.js";
import { checkOptions, type JobClientOptions } from "./options.js";
import type { Store } from "./store.js";

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
    return () => createJobClient({ ...options, getToken: () => latest.current.getToken() });
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

/** Follow a job while the component is mounted, and return its state. */
export function useJob(jobId: string): JobState {
  const client = useJobClient();
  const store = useMemo(
    () => withServerSnapshot(client.job(jobId), emptyState(jobId)),
    [client, jobId],
  );
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
}

/**
 * Whether a job's state is known and live:
 *
 * - `none`: there is no job id;
 * - `connecting`: the state is not known yet;
 * - `waiting`: the job is followed, but nothing has been published for it;
 * - `following`: the state is live;
 * - `reconnecting`: the connection was lost; the state is the last known one;
 * - `refused`: the connection or the job is refused, see `refusal`;
 * - `closed`: the client is closed.
 */
export type JobPhase =
  | "none"
  | "connecting"
  | "waiting"
  | "following"
  | "reconnecting"
  | "refused"
  | "closed";

/** The state of a job as `useJobSocket` returns it. */
export interface JobSocket
  extends Pick<
    JobState,
    | "percentage"
    | "status"
    | "message"
    | "stage"
    | "rate"
    | "eta"
    | "logs"
    | "gaps"
    | "result"
    | "error"
    | "connection"
  > {
  /** The same value as `percentage`. */
  readonly progress: number | null;
  readonly phase: JobPhase;
  /** Why the connection or the job is refused: `code` for programs, `message` for people. */
  readonly refusal: JobState["refusal"];
}

/**
 * Follow a job while the component is mounted. Without an id (`null`, `undefined` or `""`) it waits
 * for one.
 *
 * @example
 * const { progress, message, refusal } = useJobSocket(jobId);
 */
export function useJobSocket(jobId: string | null | undefined): JobSocket {
  const client = useJobClient();
  const store = useMemo(
    () => (jobId ? withServerSnapshot(client.job(jobId), emptyState(jobId)) : NO_JOB_STORE),
    [client, jobId],
  );
  const state = useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
  const { connection } = client;
  const refusedConnection = useSyncExternalStore(
    connection.subscribe,
    () => onlyIfRefused(connection.getSnapshot()),
    noConnection,
  );
  return useMemo(() => toJobSocket(state, refusedConnection), [state, refusedConnection]);
}

/**
 * Follow several jobs and return their states in the order of the ids. The component renders at most
 * once per frame, however many of the jobs change.
 */
export function useJobs(jobIds: readonly string[]): readonly JobState[] {
  const client = useJobClient();
  const key = JSON.stringify(jobIds);
  const store = useMemo(() => combineJobStores(client, JSON.parse(key) as string[]), [client, key]);
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
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

const EMPTY_STATE = emptyState("");
const NO_JOB_STORE: HydratableStore<JobState> = {
  subscribe: () => () => {},
  getSnapshot: () => EMPTY_STATE,
  getServerSnapshot: () => EMPTY_STATE,
};

const SERVER_CONNECTION: Connection = {
  state: "idle",
  code: null,
  message: null,
  attempts: 0,
  since: 0,
  ...UNKNOWN_SERVER,
};
const serverConnection = (): Connection => SERVER_CONNECTION;

/** Return the connection if it is refused. The object is the same until it changes. */
function onlyIfRefused(connection: Connection): Connection | null {
  return connection.state === "refused" ? connection : null;
}
const noConnection = (): null => null;

function toJobSocket(state: JobState, refusedConnection: Connection | null): JobSocket {
  const { percentage, status, message, stage, rate, eta, logs, gaps } = state;
  const { result, error, connection } = state;
  const refusal = state === EMPTY_STATE ? null : (state.refusal ?? toRefusal(refusedConnection));
  return {
    phase: refusal ? "refused" : toPhase(state),
    progress: percentage,
    percentage,
    status,
    message,
    stage,
    rate,
    eta,
    logs,
    gaps,
    result,
    error,
    connection,
    refusal,
  };
}

function toRefusal(refusedConnection: Connection | null): JobState["refusal"] {
  return (
    refusedConnection && {
      code: refusedConnection.code ?? "refused",
      message: refusedConnection.message ?? "refused",
    }
  );
}

function toPhase(state: JobState): JobPhase {
  if (state === EMPTY_STATE) {
    return "none";
  }
  if (state.connection === "closed") {
    return "closed";
  }
  if (state.joined === "yes") {
    return state.status === "pending" ? "waiting" : "following";
  }
  return state.updatedAt === null ? "connecting" : "reconnecting";
}
