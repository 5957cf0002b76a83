import type { Reason } from "./protocol.js";

/** The base class of the client's errors. `code` is for programs, `message` for people. */
export class JobcastError extends Error {
  override readonly name: string = "JobcastError";
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** The connection is impossible: the token is refused, `url` is invalid, or the client is closed. */
export class ConnectionRefused extends JobcastError {
  override readonly name = "ConnectionRefused";
}

/**
 * The server refused to let the client follow a job. `code` is `job_not_found` (also for a job of
 * another user), `too_many_jobs` or `invalid_request`.
 */
export class JobRefused extends JobcastError {
  override readonly name = "JobRefused";
  readonly jobId: string;

  constructor(jobId: string, code: string, message: string) {
    super(code, message);
    this.jobId = jobId;
  }
}

/**
 * The server refused to cancel a job, or did not answer. `code` is `job_not_found` (also for a job
 * that the user may not cancel), `not_cancellable`, `unavailable`, `rate_limited`, ...
 */
export class CancelRefused extends JobcastError {
  override readonly name = "CancelRefused";
  readonly jobId: string;

  constructor(jobId: string, code: string, message: string) {
    super(code, message);
    this.jobId = jobId;
  }
}

/**
 * A job ended with an error, or was cancelled: `reason` is then `cancelled` or `revoked`. `error` is
 * the class name of the exception.
 */
export class JobFailed extends JobcastError {
  override readonly name = "JobFailed";
  readonly jobId: string;
  readonly error: string;
  readonly reason: Reason;

  constructor(jobId: string, error: string, message: string, reason: Reason) {
    super("job_failed", message);
    this.jobId = jobId;
    this.error = error;
    this.reason = reason;
  }
}

/** A message from the server violates the protocol. */
export class InvalidMessage extends JobcastError {
  override readonly name = "InvalidMessage";

  constructor(message: string) {
    super("invalid_message", message);
  }
}

/** Report an error that has no caller to throw to: `reportError` in a browser, else the console. */
export function reportUncaught(error: unknown): void {
  if (typeof reportError === "function") {
    reportError(error);
  } else {
    console.error(error);
  }
}
