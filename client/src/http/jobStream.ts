/** Follows jobs over one event stream of the HTTP interface, and resumes it when it ends. */

import { backoff, REJOIN_RETRIES, RETRYABLE_CODES, retryDelay } from "../backoff.js";
import { dispatchMessage, type MessageHost } from "../dispatch.js";
import { ConnectionRefused, reportUncaught } from "../errors.js";
import type { Job } from "../job.js";
import type { Cursor, JoinedMessage, LeftMessage } from "../protocol.js";
import type { Timers } from "../timers.js";
import { EventStreamParser, type StreamMessage } from "./eventStreamParser.js";
import { hasTooManyJobs, isTemporary, type Problem, readProblem } from "./problem.js";
import { requestFrom } from "./requestFrom.js";
import { StreamSlots } from "./streamSlots.js";
import type { TokenCache } from "./tokenCache.js";
import type { IssuedToken } from "./tokenEndpoint.js";

/** The client, as a stream sees it. */
export interface StreamHost {
  readonly timers: Timers;
  /** The source of tokens; null if cookies authenticate the page. */
  readonly tokens: TokenCache | null;
  /** Return the URL of the server, which a token may name. */
  serverUrl(token: IssuedToken | null): URL;
  onConnect(): void;
  /** The server refuses streams of as many jobs. */
  onTooManyJobs(count: number): void;
  /** The stream is lost; it will be resumed. */
  onDisconnect(message: string): void;
}

// The server writes a comment after 15 seconds without an event.
const SILENCE_LIMIT = 45_000; // ms
// The server writes the first bytes together with the head of the answer.
const FIRST_DATA_LIMIT = 5000; // ms
// A browser opens at most six HTTP/1.1 connections to a host. The page needs some of them.
const MAX_STREAMS = 4;
// Streams with different credentials take turns if there are more of them.
const TURN = 3000; // ms
// History follows `joined` at once. Its last event may no longer be stored.
const REPLAY_LIMIT = 1000; // ms
const slots = new StreamSlots(MAX_STREAMS);
const SIGNED_OUT = { code: "token_missing", message: "no user is signed in" };

export class JobStream implements MessageHost {
  readonly #jobs: ReadonlyMap<string, Job>;
  readonly #host: StreamHost;
  readonly #stopped = new AbortController();
  readonly #replays = new Map<Job, { readonly end: Cursor; readonly cancel: () => void }>();
  #joins = new Map<Job, object>();
  #attempt = new AbortController();
  #retries = 0;
  #mayReplaceToken = true; // once per connection: replace a refused token
  #wake = (): void => {};
  #cancelTurn = (): void => {};

  constructor(jobs: readonly Job[], host: StreamHost) {
    this.#jobs = new Map(jobs.map((job) => [job.jobId, job]));
    this.#host = host;
  }

  /** Follow the jobs until they have ended, are refused, or `stop` is called. */
  async run(): Promise<void> {
    while (this.#openJobs().length > 0) {
      const delay = await this.#connect().catch((error: unknown) => this.#handleLoss(error));
      if (this.#openJobs().length > 0) {
        await this.#pause(delay);
      }
    }
  }

  stop(): void {
    this.#stopped.abort();
    this.#attempt.abort();
    this.#cancelReplays();
    this.#wake();
  }

  /** Connect now if the stream waits for its next attempt. */
  readonly retryNow = (): void => this.#wake();

  followedJob(jobId: string): Job | undefined {
    return this.#stopped.signal.aborted ? undefined : this.#jobs.get(jobId);
  }

  onJoined(job: Job, joined: JoinedMessage): void {
    this.#replays.get(job)?.cancel();
    const cancel = this.#host.timers.after(REPLAY_LIMIT, () => this.#endReplay(job));
    this.#replays.set(job, { end: joined, cancel });
    if (job.seq >= joined.seq) {
      this.#endReplay(job);
    }
  }

  onEvent(job: Job, seq: number): void {
    const replay = this.#replays.get(job);
    if (replay && seq >= replay.end.seq) {
      this.#endReplay(job);
    }
  }

  onLeft({ job_id, code, message }: LeftMessage): void {
    const job = this.followedJob(job_id);
    if (RETRYABLE_CODES.has(code)) {
      // The URL of a stream names its jobs: only another stream can join this one again.
      const attempt = this.#attempt;
      this.#host.timers.after(backoff(REJOIN_RETRIES), () => attempt.abort(RESUME));
    } else {
      job?.handleRefused(code, message);
    }
  }

  /** Make one request and read its answer. Returns the delay before the next one, in ms. */
  async #connect(): Promise<number> {
    this.#attempt = new AbortController();
    const { signal } = this.#attempt;
    const release = await slots.acquire(signal);
    const keepAlive = this.#watch();
    try {
      const token = (await this.#host.tokens?.get(signal)) ?? null;
      if (this.#host.tokens && !token) {
        this.#refuse(SIGNED_OUT);
        return 0;
      }
      const response = await this.#request(token, signal);
      if (!response.body || !isEventStream(response)) {
        return await this.#handleStatus(response);
      }
      this.#mayReplaceToken = true;
      keepAlive.extend(FIRST_DATA_LIMIT, HELD_BACK);
      this.#scheduleTurn();
      return await this.#read(response.body, token, keepAlive);
    } finally {
      keepAlive.cancel();
      this.#cancelTurn();
      this.#cancelReplays();
      release();
    }
  }

  #request(token: IssuedToken | null, signal: AbortSignal): Promise<Response> {
    const jobs = this.#openJobs();
    const joins = jobs.map((job) => job.beginJoin());
    this.#joins = new Map(joins.map(({ join }, index) => [jobs[index] as Job, join]));
    const cursors = joins.map(({ request }) => formatCursor(request.after));
    const query = new URLSearchParams(jobs.map((job) => ["job", job.jobId]));
    if (cursors.some((cursor) => cursor !== "")) {
      query.set("after", cursors.join(","));
    }
    return requestFrom(this.#host.serverUrl(token), `events?${query}`, signal, {
      headers: {
        Accept: "text/event-stream",
        ...(token ? { Authorization: `Bearer ${token.token}` } : {}),
      },
      credentials: token ? "same-origin" : "include",
    });
  }

  async #read(
    body: ReadableStream<Uint8Array>,
    token: IssuedToken | null,
    keepAlive: KeepAlive,
  ): Promise<number> {
    const parser = new EventStreamParser();
    const decoder = new TextDecoder();
    const reader = body.getReader();
    let isEmpty = true;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        break;
      }
      this.#host.onConnect();
      keepAlive.extend(SILENCE_LIMIT, SILENT);
      for (const message of parser.push(decoder.decode(value, { stream: true }))) {
        this.#retries = 0;
        isEmpty = false;
        this.#handleMessage(message, token);
      }
    }
    this.#markDisconnected();
    this.#retries += isEmpty ? 1 : 0;
    return Math.max(parser.retry ?? 0, backoff(this.#retries));
  }

  #handleMessage({ event, data }: StreamMessage, token: IssuedToken | null): void {
    if (event === "token_expiring") {
      void this.#replaceToken(token);
    } else if (event === "closing") {
      this.#host.tokens?.discard();
    } else {
      const payload = parseJson(data);
      payload === undefined || dispatchMessage(event, payload, this);
    }
  }

  /** Resume with a new token before the current one expires. Without one, the server ends the stream. */
  async #replaceToken(current: IssuedToken | null): Promise<void> {
    const attempt = this.#attempt;
    this.#host.tokens?.discard();
    const next = await this.#host.tokens?.get(this.#stopped.signal).catch(() => null);
    if (next && next.token !== current?.token) {
      attempt.abort(RESUME);
    }
  }

  async #handleStatus(response: Response): Promise<number> {
    if (response.status === 204) {
      for (const job of this.#openJobs()) {
        this.#accept(job, { epoch: "", seq: 0 });
      }
      return backoff(this.#retries++);
    }
    const problem = await readProblem(response);
    if (problem.status === 401 && this.#mayReplaceToken) {
      this.#mayReplaceToken = false;
      this.#host.tokens?.discard();
      return 0;
    }
    const { length } = this.#openJobs();
    if (hasTooManyJobs(problem) && length > 1) {
      this.#host.onTooManyJobs(length);
      return backoff(this.#retries++);
    }
    return this.#handleProblem(problem);
  }

  #handleProblem(problem: Problem): number {
    if (!isTemporary(problem)) {
      this.#refuse(problem);
      return 0;
    }
    this.#markDisconnected();
    this.#host.onDisconnect(problem.message);
    return retryDelay(problem, this.#retries++);
  }

  #handleLoss(error: unknown): number {
    if (error instanceof ConnectionRefused) {
      this.#refuse(error);
      return 0;
    }
    this.#markDisconnected();
    const { reason } = this.#attempt.signal;
    if (reason === RESUME) {
      return 0;
    }
    if (reason === HELD_BACK) {
      console.error(HELD_BACK);
    }
    if (!this.#stopped.signal.aborted) {
      this.#host.onDisconnect(error instanceof Error ? error.message : String(error));
    }
    return backoff(this.#retries++);
  }

  #refuse({ code, message }: { readonly code: string; readonly message: string }): void {
    for (const job of this.#openJobs()) {
      job.handleRefused(code, message);
    }
  }

  #markDisconnected(): void {
    for (const job of this.#openJobs()) {
      job.markDisconnected();
    }
  }

  #endReplay(job: Job): void {
    const replay = this.#replays.get(job);
    if (replay) {
      replay.cancel();
      this.#replays.delete(job);
      this.#accept(job, replay.end);
    }
  }

  #accept(job: Job, cursor: Cursor): void {
    const join = this.#joins.get(job);
    if (join && job.isLatestJoin(join)) {
      job.handleAccepted(cursor);
    }
  }

  #cancelReplays(): void {
    for (const { cancel } of this.#replays.values()) {
      cancel();
    }
    this.#replays.clear();
  }

  #openJobs(): Job[] {
    return this.#stopped.signal.aborted ? [] : [...this.#jobs.values()].filter(isOpen);
  }

  /** Abort the attempt when the server is silent for too long. */
  #watch(): KeepAlive {
    const attempt = this.#attempt;
    const start = (limit: number, reason: Error): (() => void) =>
      this.#host.timers.after(limit, () => attempt.abort(reason));
    let cancel = start(SILENCE_LIMIT, SILENT);
    return {
      extend: (limit, reason) => {
        cancel();
        cancel = start(limit, reason);
      },
      cancel: () => cancel(),
    };
  }

  /** Later, let another stream of the page have this one's slot, and resume after it. */
  #scheduleTurn(): void {
    const attempt = this.#attempt;
    this.#cancelTurn = this.#host.timers.after(TURN, () => {
      const isLive = this.#openJobs().every((job) => job.state.joined === "yes");
      if (isLive && slots.isContended) {
        attempt.abort(RESUME);
      } else {
        this.#scheduleTurn();
      }
    });
  }

  #pause(delay: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#host.timers.after(delay, () => this.#wake());
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }
}

interface KeepAlive {
  /** Abort with this reason unless data arrives within `limit` ms. */
  readonly extend: (limit: number, reason: Error) => void;
  readonly cancel: () => void;
}

const RESUME = new Error("the stream is resumed");
const SILENT = new Error(`the server is silent for ${SILENCE_LIMIT / 1000} seconds`);
const HELD_BACK = new Error(
  "jobcast: a proxy holds back the events of the server; configure it not to buffer the answers",
);

/** Return whether a job needs a stream. */
export function isOpen(job: Job): boolean {
  const { endedAt, joined } = job.state;
  return job.isFollowed && !job.isRefused && !(endedAt !== null && joined === "yes");
}

function isEventStream({ status, headers }: Response): boolean {
  return status === 200 && /^text\/event-stream\b/i.test(headers.get("Content-Type") ?? "");
}

function formatCursor(cursor: Cursor | undefined): string {
  return cursor ? `${cursor.epoch}:${cursor.seq}` : "";
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    reportUncaught(error);
    return undefined;
  }
}
