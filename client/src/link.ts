/** The connection: kept up, with a token that is renewed, and honest about how it stands. */

import { io, type Socket } from "socket.io-client";
import { backoff, pauseAfter } from "./backoff.js";
import { InvalidMessage, report } from "./errors.js";
import type { Frames } from "./frames.js";
import { addressOf, probe, statusOf } from "./handshake.js";
import { parse } from "./parse.js";
import type { Messages, Refusal } from "./protocol.js";
import { Listeners, type Store } from "./store.js";
import type { Timers } from "./timers.js";
import { askToken, type GetToken } from "./token.js";

export interface Connection {
  readonly state: "idle" | "connecting" | "connected" | "reconnecting" | "refused" | "closed";
  /** Why, for programs: `token_expired`, `unavailable`, ... */
  readonly code: string | null;
  /** Why, for people. */
  readonly message: string | null;
  /** Tries since the connection was last there. */
  readonly attempts: number;
  /** When the state was entered, in ms as `Date.now()` says. */
  readonly since: number;
}

export type ConnectionState = Connection["state"];
export type Transport = "websocket" | "polling";

/** Who is told what happens on the connection. */
export interface LinkHost {
  connected(): void;
  lost(): void;
  received(name: string, payload: unknown): void;
  stateChanged(): void;
  /** From now on the connection speaks for somebody else. */
  subjectChanged(): void;
}

interface LinkOptions {
  readonly url: string | undefined;
  readonly getToken: GetToken;
  readonly transports: readonly Transport[];
  readonly namespace: string;
}

type Request = "join_job" | "leave_job" | "refresh_token";

const ANSWER_TIMEOUT = 20_000; // ms that the server may take to answer a request
// While a connection with the old token goes on, in ms:
const TOKEN_PAUSE = 1000; // before `getToken` is asked again when it failed
const LONGEST_TOKEN_PAUSE = 8000;
const STEADY = 1000; // ms after which a connection counts as one that works

/** Codes of refused connections after which the same token may connect. */
const AGAIN: ReadonlySet<string> = new Set(["unavailable", "rate_limited", "too_many_connections"]);

/** The code of a refusal when the server's answer breaks the protocol. */
export const INVALID_ANSWER = "invalid_answer";

export class Link implements Store<Connection> {
  readonly #options: LinkOptions;
  readonly #host: LinkHost;
  readonly #timers: Timers;
  readonly #frames: Frames;
  readonly #listeners = new Listeners();
  #connection: Connection = {
    state: "idle",
    code: null,
    message: null,
    attempts: 0,
    since: Date.now(),
  };
  #socket: Socket | null = null;
  #asked: Promise<string | null> | null = null;
  #wasConnected = false;
  #asksAgain = true; // for a token, once, when the one that it had has expired
  #tries = 0; // since the connection was last a steady one
  #cancelRetry: (() => void) | null = null;

  constructor(options: LinkOptions, host: LinkHost, timers: Timers, frames: Frames) {
    this.#options = options;
    this.#host = host;
    this.#timers = timers;
    this.#frames = frames;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    return this.#connection.state === "closed" ? () => {} : this.#listeners.add(listener);
  };

  readonly getSnapshot = (): Connection => this.#connection;

  get isConnected(): boolean {
    return this.#connection.state === "connected";
  }

  /** Connects, unless that was begun already. */
  open(): void {
    if (this.#connection.state !== "idle") {
      return;
    }
    try {
      this.#socket = this.#listen(socketOf(this.#options, this.#authenticate));
    } catch (error) {
      this.#enter("refused", "invalid_url", messageOf(error));
      return;
    }
    globalThis.addEventListener?.("online", this.#hurry);
    this.#connect("connecting");
  }

  /** Tries now, if the connection was refused or waits for its next try. */
  retry(): void {
    if (this.#connection.state === "refused" && this.#socket !== null) {
      this.#asksAgain = true;
      this.#connect("connecting");
    } else {
      this.#hurry();
    }
  }

  close(): void {
    globalThis.removeEventListener?.("online", this.#hurry);
    this.#socket?.off();
    this.#socket?.disconnect();
    this.#socket = null;
    this.#enter("closed");
  }

  /** Forgets who wants to know. */
  clear(): void {
    this.#listeners.clear();
  }

  /** Asks the server something. `done` is not called if the connection ends before the answer. */
  request<N extends Request>(
    name: N,
    payload: Messages[N],
    done: (answer: Messages[`${N}.ack`] | Refusal) => void,
  ): void {
    const socket = this.#socket;
    if (!socket?.connected) {
      return;
    }
    socket.timeout(ANSWER_TIMEOUT).emit(name, payload, (error: unknown, answer: unknown) => {
      if (socket !== this.#socket) {
        return;
      }
      if (!error) {
        done(answerOf(name, answer));
      } else if (socket.connected) {
        socket.io.engine.close(); // a connection on which nothing is answered is none
      }
    });
  }

  #listen(socket: Socket): Socket {
    socket.on("connect", () => {
      this.#asksAgain = true;
      this.#wasConnected = true;
      this.#enter("connected");
      this.#host.connected();
    });
    socket.on("disconnect", (reason) => {
      const lasted = this.isConnected && Date.now() - this.#connection.since > STEADY;
      this.#tries = lasted ? 0 : this.#tries;
      this.#host.lost();
      this.#retryLater(null, `the connection was lost (${reason})`);
    });
    socket.on("connect_error", (error) => {
      if (socket.active) {
        this.#unreachable(error);
      } else {
        this.#refused(error);
      }
    });
    socket.on("token_expiring", () => void this.#refresh());
    socket.onAny((name: string, payload: unknown) => this.#host.received(name, payload));
    return socket;
  }

  #connect(state: ConnectionState): void {
    this.#cancelRetry?.();
    this.#cancelRetry = null;
    this.#tries += 1;
    const { code, message, attempts } = this.#connection;
    const [why, words] = state === "reconnecting" ? [code, message] : [null, null];
    this.#enter(state, why, words, attempts + 1);
    try {
      this.#socket?.connect();
    } catch (error) {
      // It may be a timer that tries, which has nobody to throw at.
      this.#enter("refused", "unusable", messageOf(error));
    }
  }

  #retryLater(
    code: string | null,
    message: string,
    delay = backoff(Math.max(0, this.#tries - 1)),
  ): void {
    this.#enter("reconnecting", code, message, this.#connection.attempts);
    // A try that fails may say so twice: by an error, and by the end of the transport.
    this.#cancelRetry ??= this.#timers.after(delay, () => this.#connect("reconnecting"));
  }

  /** Tries again, and says why it failed, also where only a request of its own can tell. */
  #unreachable(error: Error): void {
    const status = statusOf(error);
    if (status !== null) {
      this.#answered(status);
      return;
    }
    this.#retryLater(null, `the server cannot be reached (${error.message})`);
    if (!this.#wasConnected) {
      const { attempts } = this.#connection;
      void probe(this.#options.url).then((status) => {
        const { state, attempts: now } = this.#connection;
        if (status !== null && state === "reconnecting" && now === attempts) {
          this.#answered(status);
        }
      });
    }
  }

  /** The server, or a proxy before it, answered the handshake with an HTTP status. */
  #answered(status: number): void {
    if (status === 403 && !this.#wasConnected) {
      this.#socket?.disconnect();
      this.#enter("refused", "forbidden", "refused (403): is this page's origin allowed?");
    } else if (status === 404) {
      this.#retryLater("not_found", "there is no server at this path (404): is the url right?");
    } else {
      this.#retryLater(null, `the server answered ${status} instead of opening a connection`);
    }
  }

  readonly #hurry = (): void => {
    if (this.#cancelRetry !== null) {
      this.#connect("reconnecting");
    }
  };

  /** socket.io-client asks for the token here, when a transport is open. */
  readonly #authenticate = async (send: (auth: { token: string }) => void): Promise<void> => {
    const engine = this.#socket?.io.engine;
    // The server may have hung up while the last one was waited for: it serves for the next try.
    this.#asked ??= askToken(this.#options.getToken, this.#timers);
    const [token, error] = await this.#asked.then(
      (token) => [token, null] as const,
      (error: unknown) => [undefined, error] as const,
    );
    const isCurrent = this.#socket !== null && this.#socket.io.engine === engine;
    if (!isCurrent || engine?.readyState !== "open") {
      return;
    }
    this.#asked = null;
    if (token) {
      send({ token });
    } else if (token === null) {
      this.#signOut();
    } else {
      this.#socket?.disconnect();
      this.#retryLater("token_unavailable", messageOf(error));
    }
  };

  #signOut(): void {
    this.#socket?.disconnect();
    this.#enter("refused", "token_missing", "getToken gave no token: nobody is signed in");
  }

  #refused(error: Error): void {
    const refusal = refusalOf(error);
    const { code, message } = refusal;
    if (AGAIN.has(code)) {
      this.#retryLater(code, message, pauseAfter(refusal, Math.max(0, this.#tries - 1)));
    } else if (code === "token_expired" && this.#asksAgain) {
      this.#asksAgain = false;
      this.#retryLater(code, message, 0);
    } else {
      this.#enter("refused", code, message);
    }
  }

  /** Renews the token of the connection, which goes on meanwhile. */
  async #refresh(tries = 0): Promise<void> {
    const id = this.#socket?.id;
    const again = (least = 0): void => {
      // If it never succeeds the server ends the connection, and the next one says why.
      const pause = Math.max(least, Math.min(LONGEST_TOKEN_PAUSE, TOKEN_PAUSE * 2 ** tries));
      this.#timers.after(pause, () => this.#isStill(id) && void this.#refresh(tries + 1));
    };
    const token = await askToken(this.#options.getToken, this.#timers).catch(() => undefined);
    if (!this.#isStill(id)) {
      return;
    }
    if (token === null) {
      this.#signOut();
      return;
    }
    if (token === undefined) {
      again();
      return;
    }
    this.request("refresh_token", { token }, (answer) => {
      if (!answer.ok && answer.code === "token_subject") {
        this.#asked = Promise.resolve(token); // somebody else is signed in: connect as them
        this.#host.subjectChanged();
        this.#socket?.disconnect();
      } else if (!answer.ok) {
        again(pauseAfter(answer, 0));
      }
    });
  }

  #isStill(id: string | undefined): boolean {
    return id !== undefined && this.#socket?.id === id;
  }

  #enter(
    state: ConnectionState,
    code: string | null = null,
    message: string | null = null,
    attempts = 0,
  ): void {
    const before = this.#connection;
    const since = state === before.state ? before.since : Date.now();
    if (state === "refused" || state === "closed") {
      this.#cancelRetry?.();
      this.#cancelRetry = null;
    }
    this.#connection = { state, code, message, attempts, since };
    this.#frames.request(this.#tell);
    if (state !== before.state) {
      this.#host.stateChanged();
    }
  }

  readonly #tell = (): void => this.#listeners.tell();
}

function socketOf(
  { url, transports, namespace }: LinkOptions,
  authenticate: (send: (auth: { token: string }) => void) => void,
): Socket {
  const { origin, path } = addressOf(url);
  return io(`${origin}${namespace}`, {
    path,
    transports: [...transports],
    tryAllTransports: true,
    auth: authenticate,
    autoConnect: false,
    forceNew: true,
    // One policy for lost connections, refusals and expired tokens, and one that can be hurried.
    reconnection: false,
  });
}

function refusalOf(error: Error): { code: string; message: string; retry_after?: number } {
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
  } catch (flaw) {
    if (flaw instanceof InvalidMessage) {
      return { code: "refused", message }; // an application's own refusal
    }
    throw flaw;
  }
}

function answerOf<N extends Request>(name: N, answer: unknown): Messages[`${N}.ack`] | Refusal {
  try {
    return parse(`${name}.ack`, answer);
  } catch (error) {
    report(error);
    return { ok: false, code: INVALID_ANSWER, message: messageOf(error) };
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
