export type { CancelOptions, CancelResult } from "./cancelRequests.js";
export {
  createJobClient,
  DEFAULT_LOG_LIMIT,
  type FollowOptions,
  type JobClient,
  type JobListener,
} from "./client.js";
export type { Connection, ConnectionState, Transport } from "./connection.js";
export type { Problem } from "./connectionProblem.js";
export {
  CancelRefused,
  ConnectionRefused,
  InvalidMessage,
  JobcastError,
  JobFailed,
  JobRefused,
} from "./errors.js";
export { DEFAULT_FEED_LIMIT, type FeedOptions, type FeedStatus } from "./feedFilter.js";
export type { FeedState, FeedStore } from "./feedView.js";
export type { JobInfo } from "./info.js";
export { isCancellable, type JobState, type JobStore } from "./job.js";
export type { JobSummary } from "./jobSummary.js";
export type { JobClientOptions } from "./options.js";
export {
  isFeed,
  isJobId,
  isTerminal,
  type JobChange,
  type JobComplete,
  type JobError,
  type JobEvent,
  type JobEventName,
  type JobGap,
  type JobInfoUpdate,
  type JobLog,
  type JobProgress,
  type JobStatus,
  LEVELS,
  type Level,
  type Open,
  type Outcome,
  type Reason,
  type RunStatus,
  type State,
} from "./protocol.js";
export type { Cancellation, Failure, Gap, LogLine, Retry, StatusChange } from "./record.js";
export type { ClientToServerEvents, ServerToClientEvents } from "./socketEvents.js";
export type { Store } from "./store.js";
export type { GetToken } from "./token.js";
