/** The Socket.IO connection: it reconnects, renews its token, and publishes its state. */

import { io, type Socket } from "socket.io-client";
import { backoff, INVALID_ACK, retryDelay } from "./backoff.js";
import { InvalidMessage, reportUncaught } from "./errors.js";
import type { FrameScheduler } from "./frameScheduler.js";
import { httpStatus, isOwnServer, parseAddress, probeStatus } from "./handshake.js";
import { FORBIDDEN } from "./http/problem.js";
import { parse } from "./parse.js";
import type { Messages, Refusal } from "./protocol.js";
import { Listeners, type Store } from "./store.js";
import type { Timers } from "./timers.js";
import { type GetToken, requestToken, SubjectWatch } from "./token.js";

/** The state of the connection. */
export interface Connection {
  readonly state: "idle" | "connecting" | "connected" | "reconnecting" | "refused" | "closed";
  /** The reason for programs: `token_expired`, `unavailable`, ... */
  readonly code: string | null;
  /** The reason for people. */
  readonly message: string | null;
  /** The number of attempts since the connection was last established. */
  readonly attempts: number;
  /** When the state began: ms since the epoch, as in `Date.now()`. */
  readonly since: number;
  /** The name and the version of the server, while connected; null if it does not report them. */
  readonly server: string | null;
  /** What the server offers, such as `join_job`, while connected; null if it does not report it. */
  readonly features: readonly string[] | null;
}

/** The states of the connection. */
export type ConnectionState = Connection["state"];
/** The transports of Socket.IO. */
export type Transport = "websocket" | "polling";

/** The client, as the connection sees it. */
export interface ConnectionHost {
  onConnect(): void;
  onDisconnect(): void;
  onMessage(name: string, payload: unknown): void;
  onStateChange(): void;
  /** The next connection belongs to another user. */
  onSubjectChange(): void;
}

interface ConnectionOptions {
  readonly url: string | undefined;
  readonly getToken: GetToken | null;
  readonly transports: readonly Transport[];
  readonly namespace: string;
}

type Request =
  | "join_job"
  | "leave_job"
  | "cancel_job"
  | "join_feed"
  | "leave_feed"
  | "refresh_token";

const ACK_TIMEOUT = 20_000; // ms within which the server has to acknowledge a request
// Between two calls of `getToken` if a renewal fails; the connection stays open meanwhile:
const TOKEN_RETRY_DELAY = 1000; // ms
const MAX_TOKEN_RETRY_DELAY = 8000; // ms
const STABLE_AFTER = 1000; // ms after which a connection resets the backoff

/** The fields of a connection before the server's `hello`. */
export const UNKNOWN_SERVER = { server: null, features: null } as const;

/** Refusals after which the same token may succeed. */
const RETRYABLE_CODES: ReadonlySet<string> = new Set([
  "unavailable",
  "rate_limited",
  "too_many_connections",
]);

/** Codes and messages for HTTP statuses of a failed handshake. */
const STATUS_REASONS: ReadonlyMap<number, readonly [string, string]> = new Map([
  [404, ["not_found", "no jobcast server at this path (404): check the url option"]],
  [429, ["too_many_connections", "too many connections or requests from this address (429)"]],
  [503, ["unavailable", "the server is full or about to exit, or its proxy cannot reach it (503)"]],
]);
const NO_WEBSOCKET =
  "the server answers, but no WebSocket opens: a proxy in front of it has to forward WebSockets";

/** Opens the connection, keeps it open, and sends requests over it. */
export class ConnectionManager implements Store<Connection> {
  readonly #options: ConnectionOptions;
  readonly #host: ConnectionHost;
  readonly #timers: Timers;
  readonly #frames: FrameScheduler;
  readonly #listeners = new Listeners();
  #snapshot: Connection = {
    state: "idle",
    code: null,
    message: null,
    attempts: 0,
    since: Date.now(),
    ...UNKNOWN_SERVER,
  };
  #socket: Socket | null = null;
  #pendingToken: Promise<string | null> | null = null;
  #mustRenewToken = false; // `retry` was called after the token of this attempt was requested
  readonly #subject = new SubjectWatch();
  #renewals = 0; // of the token of an open connection
  #probed: number | "accepted" | null = null; // the server's answer after the last failed attempt
  #cancelRenewal: (() => void) | null = null; // the next attempt to renew the token
  #wasConnected = false;
  #mayReplaceExpiredToken = true; // once per connection: replace an expired token
  #attempts = 0; // attempts since the connection was last stable
  #cancelRetry: (() => void) | null = null;

  constructor(
    options: ConnectionOptions,
    host: ConnectionHost,
    timers: Timers,
    frames: FrameScheduler,
  ) {
    this.#options = options;
    this.#host = host;
    this.#timers = timers;
    this.#frames = frames;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    return this.#snapshot.state === "closed" ? () => {} : this.#listeners.add(listener);
  };

  readonly getSnapshot = (): Connection => this.#snapshot;

  get isConnected(): boolean {
    return this.#snapshot.state === "connected";
  }

  /** Connect, unless the connection was opened before. */
  open(): void {
    if (this.#snapshot.state !== "idle") {
      return;
    }
    try {
      this.#socket = this.#addListeners(createSocket(this.#options, this.#authenticate));
    } catch (error) {
      this.#setState("refused", "invalid_url", errorMessage(error));
      return;
    }
    globalThis.addEventListener?.("online", this.#retryNow);
    this.#connect("connecting");
  }

  /**
   * Connect now if the connection is refused or waits for its next attempt. Renew the token of an open
   * connection: another user may have signed in.
   */
  retry(): void {
    this.#pendingToken = null;
    if (this.#snapshot.state === "refused" && this.#socket !== null) {
      this.#mayReplaceExpiredToken = true;
      this.#connect("connecting");
    } else if (this.isConnected) {
      void this.#refreshToken();
    } else {
      this.#mustRenewToken = true;
      this.#retryNow();
    }
  }

  close(): void {
    globalThis.removeEventListener?.("online", this.#retryNow);
    this.#socket?.off();
    this.#socket?.disconnect();
    this.#socket = null;
    this.#setState("closed");
  }

  /** Remove all subscribers. */
  removeListeners(): void {
    this.#listeners.clear();
  }

  /** Send a request. `done` is not called if the connection ends before the acknowledgement. */
  request<N extends Request>(
    name: N,
    payload: Messages[N],
    done: (ack: Messages[`${N}.ack`] | Refusal) => void,
  ): void {
    const socket = this.#socket;
    if (!socket?.connected) {
      return;
    }
    socket.timeout(ACK_TIMEOUT).emit(name, payload, (error: unknown, ack: unknown) => {
      if (socket !== this.#socket) {
        return;
      }
      if (!error) {
        done(parseAck(name, ack));
      } else if (socket.connected) {
        socket.io.engine.close(); // an unresponsive connection counts as lost
      }
    });
  }

  #addListeners(socket: Socket): Socket {
    socket.on("connect", () => {
      this.#mayReplaceExpiredToken = true;
      this.#wasConnected = true;
      this.#setState("connected");
      this.#host.onConnect();
      if (this.#mustRenewToken) {
        this.#mustRenewToken = false;
        void this.#refreshToken();
      }
    });
    socket.on("disconnect", (reason) => {
      const wasStable = this.isConnected && Date.now() - this.#snapshot.since > STABLE_AFTER;
      this.#attempts = wasStable ? 0 : this.#attempts;
      this.#host.onDisconnect();
      this.#scheduleRetry(null, `the connection was lost (${reason})`);
    });
    socket.on("connect_error", (error) => {
      if (socket.active) {
        this.#handleTransportError(error);
      } else {
        this.#handleRefusal(error);
      }
    });
    socket.on("hello", (payload) => this.#handleHello(payload));
    socket.on("token_expiring", () => void this.#refreshToken());
    socket.onAny((name: string, payload: unknown) => this.#host.onMessage(name, payload));
    return socket;
  }

  #handleHello(payload: unknown): void {
    try {
      const { server, features } = parse("hello", payload);
      this.#snapshot = { ...this.#snapshot, server, features };
      this.#frames.schedule(this.#notify);
    } catch (error) {
      reportUncaught(error);
    }
  }

  #connect(state: ConnectionState): void {
    this.#cancelRetry?.();
    this.#cancelRetry = null;
    this.#attempts += 1;
    const { code, message, attempts } = this.#snapshot;
    const [reason, text] = state === "reconnecting" ? [code, message] : [null, null];
    this.#setState(state, reason, text, attempts + 1);
    try {
      this.#socket?.connect();
    } catch (error) {
      // A timer may have called this, so there is no caller to throw to.
      this.#setState("refused", "unusable", errorMessage(error));
    }
  }

  #scheduleRetry(
    code: string | null,
    message: string,
    delay = backoff(Math.max(0, this.#attempts - 1)),
  ): void {
    this.#setState("reconnecting", code, message, this.#snapshot.attempts);
    // A failed attempt may report twice: an error, and the end of the transport.
    this.#cancelRetry ??= this.#timers.after(delay, () => this.#connect("reconnecting"));
  }

  /** Schedule a retry, and find out the HTTP status of the failure, with a request if necessary. */
  #handleTransportError(error: Error): void {
    const status = httpStatus(error);
    if (status !== null) {
      this.#handleHttpStatus(status);
      return;
    }
    this.#scheduleRetry(null, `the server cannot be reached (${error.message})`);
    if (!this.#wasConnected) {
      const { url, transports } = this.#options;
      const [transport = "websocket"] = transports;
      const { attempts } = this.#snapshot;
      void probeStatus(url, transport).then((status) => {
        const { state, attempts: now } = this.#snapshot;
        const isRepeated = status === this.#probed;
        this.#probed = status;
        if (status === null || state !== "reconnecting" || now !== attempts) {
          return;
        }
        // A server that starts between the handshake and the probe causes such an answer once.
        const isCertain = isRepeated || (status !== "accepted" && !isOwnServer(url));
        if (isCertain && status !== "accepted") {
          this.#handleHttpStatus(status);
        } else if (isCertain && transport === "websocket") {
          this.#scheduleRetry("no_websocket", NO_WEBSOCKET);
        }
      });
    }
  }

  /** The server, or a proxy in front of it, rejected the handshake with an HTTP status. */
  #handleHttpStatus(status: number): void {
    if (status === 403 && !this.#wasConnected) {
      this.#socket?.disconnect();
      this.#setState("refused", "forbidden", FORBIDDEN);
      return;
    }
    const [code, message] = STATUS_REASONS.get(status) ?? [
      null,
      `the handshake failed with HTTP status ${status}`,
    ];
    this.#scheduleRetry(code, message);
  }

  readonly #retryNow = (): void => {
    if (this.#cancelRetry !== null) {
      this.#connect("reconnecting");
    }
  };

  /** Send the token. socket.io-client calls this when the transport is open. */
  readonly #authenticate = async (send: (auth: { token?: string }) => void): Promise<void> => {
    const { getToken } = this.#options;
    if (getToken === null) {
      send({});
      return;
    }
    const engine = this.#socket?.io.engine;
    const isCurrent = (): boolean =>
      this.#socket?.io.engine === engine && engine?.readyState === "open";
    const [token, error] = await this.#nextToken(getToken, isCurrent);
    if (!isCurrent()) {
      return;
    }
    this.#pendingToken = null;
    if (token) {
      this.#noteSubject(token);
      send({ token });
    } else if (token === null) {
      this.#refuseMissingToken();
    } else {
      this.#socket?.disconnect();
      this.#scheduleRetry("token_unavailable", errorMessage(error));
    }
  };

  /** Return a token that was requested after the last call of `retry`, or the reason for its absence. */
  async #nextToken(
    getToken: GetToken,
    isCurrent: () => boolean,
  ): Promise<readonly [token: string | null | undefined, error: unknown]> {
    for (;;) {
      if (this.#pendingToken === null) {
        this.#pendingToken = requestToken(getToken, this.#timers);
        this.#mustRenewToken = false;
      }
      // If the server hung up before an earlier token arrived, use that token now.
      const pending = this.#pendingToken;
      const outcome = await pending.then(
        (token) => [token, null] as const,
        (error: unknown) => [undefined, error] as const,
      );
      if (pending === this.#pendingToken || !isCurrent()) {
        return outcome;
      }
    }
  }

  #noteSubject(token: string): void {
    const isOfAnotherUser = this.#subject.changes(token);
    this.#subject.note(token);
    if (isOfAnotherUser) {
      this.#host.onSubjectChange();
    }
  }

  #refuseMissingToken(): void {
    this.#socket?.disconnect();
    this.#setState("refused", "token_missing", "getToken returned no token: no user is signed in");
  }

  #handleRefusal(error: Error): void {
    const refusal = parseRefusal(error);
    const { code, message } = refusal;
    if (RETRYABLE_CODES.has(code)) {
      this.#scheduleRetry(code, message, retryDelay(refusal, Math.max(0, this.#attempts - 1)));
    } else if (code === "token_expired" && this.#mayReplaceExpiredToken) {
      this.#mayReplaceExpiredToken = false;
      this.#scheduleRetry(code, message, 0);
    } else {
      this.#setState("refused", code, message);
    }
  }

  /** Renew the token of the open connection. */
  async #refreshToken(retries = 0): Promise<void> {
    const { getToken } = this.#options;
    if (getToken === null) {
      return; // the server ends the connection, and identifies the user again at the next one
    }
    this.#cancelRenewal?.();
    this.#renewals += 1;
    const renewal = this.#renewals;
    const id = this.#socket?.id;
    const retry = (minimum = 0): void => {
      // If no renewal succeeds, the server ends the connection, and the next one reports why.
      const delay = Math.min(MAX_TOKEN_RETRY_DELAY, TOKEN_RETRY_DELAY * 2 ** retries);
      this.#cancelRenewal?.();
      this.#cancelRenewal = this.#timers.after(Math.max(minimum, delay), () => {
        if (this.#isCurrentSocket(id)) {
          void this.#refreshToken(retries + 1);
        }
      });
    };
    const token = await requestToken(getToken, this.#timers).catch(() => undefined);
    if (!this.#isCurrentSocket(id) || renewal !== this.#renewals) {
      return;
    }
    if (token === null) {
      this.#refuseMissingToken();
      return;
    }
    if (token === undefined) {
      retry();
      return;
    }
    this.request("refresh_token", { token }, (ack) => {
      if (!ack.ok && ack.code === "token_subject") {
        this.#pendingToken = Promise.resolve(token); // another user signed in: reconnect as them
        this.#subject.note(token);
        this.#host.onSubjectChange();
        this.#socket?.disconnect();
      } else if (!ack.ok) {
        retry(retryDelay(ack, 0));
      }
    });
  }

  #isCurrentSocket(id: string | undefined): boolean {
    return id !== undefined && this.#socket?.id === id;
  }

  #setState(
    state: ConnectionState,
    code: string | null = null,
    message: string | null = null,
    attempts = 0,
  ): void {
    const before = this.#snapshot;
    const since = state === before.state ? before.since : Date.now();
    if (state === "refused" || state === "closed") {
      this.#cancelRetry?.();
      this.#cancelRetry = null;
    }
    this.#snapshot = { state, code, message, attempts, since, ...UNKNOWN_SERVER };
    this.#frames.schedule(this.#notify);
    if (state !== before.state) {
      this.#host.onStateChange();
    }
  }

  readonly #notify = (): void => this.#listeners.notify();
}

function createSocket(
  { url, transports, namespace }: ConnectionOptions,
  authenticate: (send: (auth: { token?: string }) => void) => void,
): Socket {
  const { origin, path } = parseAddress(url);
  return io(`${origin}${namespace}`, {
    path,
    transports: [...transports],
    tryAllTransports: true,
    auth: authenticate,
    autoConnect: false,
    forceNew: true,
    // This class retries: lost connections, refusals and expired tokens share one backoff.
    reconnection: false,
  });
}

function parseRefusal(error: Error): { code: string; message: string; retry_after?: number } {
  const { message } = error;
  try {
    const given = (error as { data?: { retry_after?: unknown } }).data;
    const { data } = parse("connect_error", { message, data: given });
    const pause = given?.retry_after;
    return {
      code: data.code,
      message: data.message ?? message,
      ...(typeof pause === "number" && pause >= 0 ? { retry_after: pause } : {}),
    };
  } catch (parseError) {
    if (parseError instanceof InvalidMessage) {
      return { code: "refused", message }; // the application refused the connection in its own format
    }
    throw parseError;
  }
}

function parseAck<N extends Request>(name: N, ack: unknown): Messages[`${N}.ack`] | Refusal {
  try {
    return parse(`${name}.ack`, ack);
  } catch (error) {
    reportUncaught(error);
    return { ok: false, code: INVALID_ACK, message: errorMessage(error) };
  }
}

function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
