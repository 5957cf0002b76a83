"use client";

/** Jobs in React. Nothing is decided here: the hooks subscribe to the client's stores. */

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
import { blankState, type JobState } from "./job.js";
import type { Connection } from "./link.js";
import { checkOptions, type JobClientOptions } from "./options.js";
import type { Store } from "./store.js";

const JobcastContext: Context<JobClient | null> = createContext<JobClient | null>(null);

export type JobcastProviderProps =
  | { readonly client: JobClient; readonly options?: never; readonly children?: ReactNode }
  | { readonly options: JobClientOptions; readonly client?: never; readonly children?: ReactNode };

/**
 * Gives a client to the hooks below it: `client`, or one of its own that is made of `options` when
 * it is first rendered, and closed when it goes. Of other options only `getToken` counts later.
 */
export function JobcastProvider({ client, options, children }: JobcastProviderProps): ReactElement {
  if (client) {
    return createElement(JobcastContext.Provider, { value: client }, children);
  }
  return createElement(OwnClient, { options }, children);
}

function OwnClient(props: {
  readonly options: JobClientOptions;
  readonly children?: ReactNode;
}): ReactElement {
  const latest = useRef(props.options);
  useEffect(() => {
    latest.current = props.options;
  });
  const [make] = useState(() => {
    const options = props.options;
    checkOptions(options); // what is made of them always has a function for getToken
    return () => createJobClient({ ...options, getToken: () => latest.current.getToken() });
  });
  const [client, setClient] = useState(make);
  const closing = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => {
    // Strict mode goes and comes back in the same moment; a hidden tree comes back later.
    clearTimeout(closing.current);
    if (client.connection.getSnapshot().state === "closed") {
      setClient(make());
    }
    return () => {
      closing.current = setTimeout(() => client.close(), 0);
    };
  }, [client, make]);
  return createElement(JobcastContext.Provider, { value: client }, props.children);
}

/** The client that the provider gives. */
export function useJobClient(): JobClient {
  const client = useContext(JobcastContext);
  if (!client) {
    throw new Error("the hooks of @jobcast/client/react need a <JobcastProvider> above them");
  }
  return client;
}

/** How the connection stands. */
export function useConnection(): Connection {
  const { connection } = useJobClient();
  return useSyncExternalStore(connection.subscribe, connection.getSnapshot, serverConnection);
}

/** Everything that is known of a job. The component follows it as long as it is there. */
export function useJob(jobId: string): JobState {
  const client = useJobClient();
  const store = useMemo(() => withServer(client.job(jobId), blankState(jobId)), [client, jobId]);
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
}

/**
 * What `status` alone does not say of a job that is `pending`:
 *
 * - `none`: there is no job id yet;
 * - `connecting`: it is not known yet what the job does;
 * - `waiting`: it is known, and nothing has been published of the job;
 * - `following`: the state is the job's, live;
 * - `reconnecting`: the state is what was known when the connection was lost;
 * - `refused`: the connection or the job was refused, `refusal` says why;
 * - `closed`: the client was closed.
 */
export type JobPhase =
  | "none"
  | "connecting"
  | "waiting"
  | "following"
  | "reconnecting"
  | "refused"
  | "closed";

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
    | "result"
    | "error"
    | "connection"
  > {
  /** The same as `percentage`. */
  readonly progress: number | null;
  readonly phase: JobPhase;
  /** Why the connection or the job was refused: `code` for programs, `message` for people. */
  readonly refusal: JobState["refusal"];
}

/** The job with this id, or nothing yet as long as there is none. */
export function useJobSocket(jobId: string | null | undefined): JobSocket {
  const client = useJobClient();
  const store = useMemo(
    () => (jobId ? withServer(client.job(jobId), blankState(jobId)) : NO_JOB),
    [client, jobId],
  );
  const state = useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
  const { connection } = client;
  const refused = useSyncExternalStore(
    connection.subscribe,
    () => refusedConnection(connection.getSnapshot()),
    noConnection,
  );
  return useMemo(() => socketOf(state, refused), [state, refused]);
}

/** Several jobs, in the order of their ids: one subscription, and one render a frame for all. */
export function useJobs(jobIds: readonly string[]): readonly JobState[] {
  const client = useJobClient();
  const key = JSON.stringify(jobIds);
  const store = useMemo(() => storeOfJobs(client, JSON.parse(key) as string[]), [client, key]);
  return useSyncExternalStore(store.subscribe, store.getSnapshot, store.getServerSnapshot);
}

interface ServedStore<T> extends Store<T> {
  /** What a server renders, and a page before it has taken over. */
  readonly getServerSnapshot: () => T;
}

function withServer<T>(store: Store<T>, blank: T): ServedStore<T> {
  const { subscribe, getSnapshot } = store;
  return { subscribe, getSnapshot, getServerSnapshot: () => blank };
}

function storeOfJobs(
  client: JobClient,
  jobIds: readonly string[],
): ServedStore<readonly JobState[]> {
  const stores = jobIds.map((jobId) => client.job(jobId));
  const blank = jobIds.map(blankState);
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
    getServerSnapshot: () => blank,
  };
}

const BLANK = blankState("");
const NO_JOB: ServedStore<JobState> = {
  subscribe: () => () => {},
  getSnapshot: () => BLANK,
  getServerSnapshot: () => BLANK,
};

const SERVER_CONNECTION: Connection = {
  state: "idle",
  code: null,
  message: null,
  attempts: 0,
  since: 0,
};
const serverConnection = (): Connection => SERVER_CONNECTION;

/** The connection if it was refused: the same object until it changes. */
function refusedConnection(connection: Connection): Connection | null {
  return connection.state === "refused" ? connection : null;
}
const noConnection = (): null => null;

function socketOf(state: JobState, refused: Connection | null): JobSocket {
  const { percentage, status, message, stage, rate, eta, logs, result, error } = state;
  const { connection } = state;
  const refusal = state === BLANK ? null : (state.refusal ?? refusalOf(refused));
  return {
    phase: refusal ? "refused" : phaseOf(state),
    progress: percentage,
    percentage,
    status,
    message,
    stage,
    rate,
    eta,
    logs,
    result,
    error,
    connection,
    refusal,
  };
}

function refusalOf(refused: Connection | null): JobState["refusal"] {
  return refused && { code: refused.code ?? "refused", message: refused.message ?? "refused" };
}

function phaseOf(state: JobState): JobPhase {
  if (state === BLANK) {
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
