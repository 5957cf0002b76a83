/** The state of a job and of its connection in one store, for the bindings to frameworks. */

import type { JobClient } from "./client.js";
import { type Connection, UNKNOWN_SERVER } from "./connection.js";
import { connectionProblem, isSameProblem, type Problem } from "./connectionProblem.js";
import { emptyState, isCancellable, type JobState } from "./job.js";
import { isTerminal } from "./protocol.js";
import type { Cancellation, Failure } from "./record.js";
import type { Store } from "./store.js";

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

interface Completed<Result> {
  readonly status: "complete";
  readonly isDone: true;
  readonly result: Result;
  readonly error: null;
  readonly cancellation: null;
}

interface Failed {
  readonly status: "error";
  readonly isDone: true;
  readonly result: null;
  readonly error: Failure;
  readonly cancellation: null;
}

interface Cancelled {
  readonly status: "cancelled";
  readonly isDone: true;
  readonly result: null;
  readonly error: null;
  readonly cancellation: Cancellation;
}

interface Unfinished {
  /** At run time also a status that a later server sends. */
  readonly status: "pending" | "queued" | "started" | "retrying" | "stalled" | "cancelling";
  readonly isDone: false;
  readonly result: null;
  readonly error: null;
  readonly cancellation: Cancellation | null;
}

/**
 * How far a job is. `status` and `isDone` determine the types of `result`, `error` and `cancellation`.
 */
export type JobOutcome<Result> = Completed<Result> | Failed | Cancelled | Unfinished;

/** The state of a job as components see it. */
export type FollowedJob<Result = unknown> = Readonly<
  Omit<JobState, "status" | "result" | "error" | "cancellation"> & {
    /** The same value as `percentage`. */
    progress: number | null;
    phase: JobPhase;
    /** Whether there is a job whose state is not known yet. */
    isLoading: boolean;
    /** Whether a request can cancel the job. The server decides whether the user may do so. */
    isCancellable: boolean;
    /** Why the connection is lost or refused; null while it is established. */
    connectionError: Problem | null;
  }
> &
  JobOutcome<Result>;

/** The state without a job. */
export const NO_JOB: FollowedJob<never> = toFollowedJob(emptyState(""), null, "none");

const NO_JOB_STORE: Store<FollowedJob<never>> = {
  subscribe: () => () => {},
  getSnapshot: () => NO_JOB,
};

/** The state of the connection before the client exists, as in server rendering. */
export const NO_CONNECTION: Connection = {
  state: "idle",
  code: null,
  message: null,
  attempts: 0,
  since: 0,
  ...UNKNOWN_SERVER,
};

/** Return the store of a job. Without an id (`null`, `undefined` or `""`) it has no job. */
export function followedJob<Result = unknown>(
  client: JobClient,
  jobId: string | null | undefined,
): Store<FollowedJob<Result>> {
  return jobId ? combine(client, jobId) : NO_JOB_STORE;
}

/** Return the state of a job before it is followed. */
export function unfollowedJob<Result = unknown>(
  jobId: string | null | undefined,
): FollowedJob<Result> {
  return jobId ? toFollowedJob(emptyState(jobId), null) : NO_JOB;
}

function combine<Result>(client: JobClient, jobId: string): Store<FollowedJob<Result>> {
  const job = client.job(jobId);
  const { connection } = client;
  let last: { state: JobState; problem: Problem | null; value: FollowedJob<Result> } | null = null;
  return {
    subscribe(listener) {
      const stops = [job.subscribe(listener), connection.subscribe(listener)];
      return () => {
        for (const stop of stops) {
          stop();
        }
      };
    },
    getSnapshot() {
      const state = job.getSnapshot();
      const problem = connectionProblem(connection.getSnapshot());
      if (last?.state !== state || !isSameProblem(last.problem, problem)) {
        last = { state, problem, value: toFollowedJob(state, problem) };
      }
      return last.value;
    },
  };
}

function toFollowedJob<Result>(
  state: JobState,
  connectionError: Problem | null,
  phase?: JobPhase,
): FollowedJob<Result> {
  const refusal = state.refusal ?? (state.connection === "refused" ? connectionError : null);
  const shownPhase = phase ?? (refusal ? "refused" : toPhase(state));
  const job = {
    ...state,
    refusal,
    progress: state.percentage,
    phase: shownPhase,
    isLoading: shownPhase === "connecting",
    isDone: isTerminal(state.status),
    isCancellable: isCancellable(state),
    connectionError,
  };
  return job as unknown as FollowedJob<Result>; // the server decides that the result has this type
}

function toPhase(state: JobState): JobPhase {
  if (state.connection === "closed") {
    return "closed";
  }
  if (state.joined === "yes") {
    return state.status === "pending" ? "waiting" : "following";
  }
  return state.updatedAt === null ? "connecting" : "reconnecting";
}
