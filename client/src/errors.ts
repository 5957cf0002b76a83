import type { Reason } from "./protocol.js";

/** What went wrong: `code` is for programs, `message` for people. */
export class JobcastError extends Error {
  override readonly name: string = "JobcastError";
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** The server does not take the token, its address is none, or the client was closed. */
export class ConnectionRefused extends JobcastError {
  override readonly name = "ConnectionRefused";
}

/** A job may not be followed: it does not exist, or is another user's, or there are too many. */
export class JobRefused extends JobcastError {
  override readonly name = "JobRefused";
  readonly jobId: string;

  constructor(jobId: string, code: string, message: string) {
    super(code, message);
    this.jobId = jobId;
  }
}

/** A job ended with an error. `error` is the exception's class name. */
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

/** The server does not keep the protocol. */
export class InvalidMessage extends JobcastError {
  override readonly name = "InvalidMessage";

  constructor(message: string) {
    super("invalid_message", message);
  }
}

/** Says what went wrong in a listener or in a message, without disturbing anybody else. */
export function report(error: unknown): void {
  if (typeof reportError === "function") {
    reportError(error);
  } else {
    console.error(error);
  }
}
