/** The requests to cancel jobs that wait for their answers. */

import { RETRYABLE_CODES, retryDelay } from "./backoff.js";
import type { ConnectionState } from "./connection.js";
import { CancelRefused, ConnectionRefused, type JobcastError } from "./errors.js";
import { MAX_CANCEL_MESSAGE } from "./parse.js";
import {
  type CancelAccepted,
  type CancelJobRequest,
  isJobId,
  type Messages,
  type Outcome,
  type Refusal,
} from "./protocol.js";

/** Options of `cancel`. */
export interface CancelOptions {
  /** Why: a text for people, which the job and its followers receive. It is cut to 1,000 characters. */
  readonly message?: string | undefined;
}

/** The answer to a request to cancel a job. */
export interface CancelResult {
  /**
   * - `cancelled`: the job was not running, and has ended;
   * - `requested`: the job is running; its status is `cancelling` until it ends;
   * - `already_ended`: the job had ended before.
   */
  readonly outcome: Outcome;
  /** Whether the worker terminates a run that does not end by itself; it asks every run to end. */
  readonly terminates: boolean;
}

/** The client, as its requests see it. */
export interface CancelHost {
  /** Why the connection is refused or closed; null if it is neither. */
  readonly connectionError: JobcastError | null;
  readonly connectionState: ConnectionState;
  openConnection(): void;
  after(delay: number, action: () => void): () => void;
  /** Send a request. `done` is not called if the connection ends before the answer. */
  requestCancel(request: CancelJobRequest, done: (ack: Messages["cancel_job.ack"]) => void): void;
}

/**
 * Within this time, in ms, a request is repeated after a lost connection and after temporary
 * refusals. Repeating it is safe: it cancels one sending of a job, however often it arrives.
 */
export const CANCEL_TIMEOUT = 20_000;

const REPEATED_CODES: ReadonlySet<string> = new Set([...RETRYABLE_CODES, "not_authenticated"]);

/** Sends requests to cancel jobs, and repeats them until the server answers. */
export class CancelRequests {
  readonly #host: CancelHost;
  readonly #pending = new Set<PendingRequest>();

  constructor(host: CancelHost) {
    this.#host = host;
  }

  /** Whether a request waits for its answer. */
  get isPending(): boolean {
    return this.#pending.size > 0;
  }

  request(jobId: string, options: CancelOptions = {}): Promise<CancelResult> {
    return new Promise((resolve, reject) => {
      const request = cancelRequest(jobId, options);
      const error = this.#host.connectionError;
      if (error) {
        throw error;
      }
      const pending = new PendingRequest(request, this.#host, {
        onDone: () => this.#pending.delete(pending),
        resolve,
        reject,
      });
      this.#pending.add(pending);
      this.#host.openConnection();
      pending.send();
    });
  }

  /** Send what waits for an answer on a new connection. */
  onConnect(): void {
    for (const request of this.#pending) {
      request.send();
    }
  }

  /** Give up if the connection is refused or closed. */
  onStateChange(): void {
    const error = this.#host.connectionError;
    if (error) {
      this.#rejectAll(() => error);
    }
  }

  /** The next connection belongs to another user, who did not request this. */
  onSubjectChange(): void {
    this.#rejectAll(() => new ConnectionRefused("token_subject", "another user signed in"));
  }

  #rejectAll(error: () => JobcastError): void {
    for (const request of [...this.#pending]) {
      request.reject(error());
    }
  }
}

interface Settling {
  readonly onDone: () => void;
  readonly resolve: (result: CancelResult) => void;
  readonly reject: (error: JobcastError) => void;
}

class PendingRequest {
  readonly #request: CancelJobRequest;
  readonly #host: CancelHost;
  readonly #settling: Settling;
  readonly #cancelTimeout: () => void;
  #retries = 0;
  #refusal: Refusal | null = null; // the latest one
  #isDone = false;

  constructor(request: CancelJobRequest, host: CancelHost, settling: Settling) {
    this.#request = request;
    this.#host = host;
    this.#settling = settling;
    this.#cancelTimeout = host.after(CANCEL_TIMEOUT, () => this.reject(this.#timeout()));
  }

  send(): void {
    if (this.#host.connectionState !== "connected" || this.#isDone) {
      return;
    }
    this.#host.requestCancel(this.#request, (ack) => {
      if (ack.ok) {
        this.#resolve(ack);
      } else if (REPEATED_CODES.has(ack.code)) {
        this.#refusal = ack;
        this.#host.after(retryDelay(ack, this.#retries++), () => this.send());
      } else {
        this.reject(new CancelRefused(this.#request.job_id, ack.code, ack.message));
      }
    });
  }

  reject(error: JobcastError): void {
    this.#end();
    this.#settling.reject(error);
  }

  #resolve({ outcome, terminates = false }: CancelAccepted): void {
    this.#end();
    this.#settling.resolve({ outcome, terminates });
  }

  #end(): void {
    this.#isDone = true;
    this.#cancelTimeout();
    this.#settling.onDone();
  }

  #timeout(): JobcastError {
    const { code = "unavailable", message = "the server did not answer" } = this.#refusal ?? {};
    const text = `${message}; gave up after ${CANCEL_TIMEOUT / 1000} s: the job may go on`;
    return new CancelRefused(this.#request.job_id, code, text);
  }
}

/**
 * Return the request to cancel a job.
 *
 * @throws CancelRefused if the id is invalid.
 * @throws TypeError if the message is not a string.
 */
export function cancelRequest(jobId: string, { message = "" }: CancelOptions): CancelJobRequest {
  if (!isJobId(jobId)) {
    throw new CancelRefused(String(jobId), "invalid_request", `invalid job id: ${jobId}`);
  }
  if (typeof message !== "string") {
    throw new TypeError("cancel: message has to be a string");
  }
  const text = [...message].slice(0, MAX_CANCEL_MESSAGE).join("");
  return { job_id: jobId, ...(text === "" ? {} : { message: text }) };
}
