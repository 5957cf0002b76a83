import { SubjectWatch, TOKEN_TIMEOUT } from "../token.js";
import type { IssuedToken } from "./tokenEndpoint.js";

const LEAST_LIFETIME = 5000; // ms that a token has to be valid for another request

/** Returns a token; null if no user is signed in. */
export type RequestToken = (signal: AbortSignal) => Promise<IssuedToken | null>;

/** Keeps a token for the next requests until it expires or is refused. */
export class TokenCache {
  readonly #request: RequestToken;
  readonly #onSubjectChange: () => void;
  readonly #subject = new SubjectWatch();
  #token: IssuedToken | null = null;
  #pending: Promise<IssuedToken | null | undefined> | null = null; // all callers share it
  #discards = 0;

  /** @param onSubjectChange is called before a token of another user than the last one is used. */
  constructor(request: RequestToken, onSubjectChange: () => void) {
    this.#request = request;
    this.#onSubjectChange = onSubjectChange;
  }

  /** Return a token that is still valid; null if no user is signed in. */
  async get(signal: AbortSignal): Promise<IssuedToken | null> {
    for (;;) {
      if (this.#token && this.#token.expiresAt - Date.now() >= LEAST_LIFETIME) {
        return this.#token;
      }
      this.#pending ??= this.#renew();
      const token = await unlessAborted(this.#pending, signal);
      if (token !== undefined) {
        return token;
      }
    }
  }

  /** Request another token for the next requests, although one is kept or on its way. */
  discard(): void {
    this.#token = null;
    this.#pending = null;
    this.#discards += 1;
  }

  /** Request a token. Returns undefined if it may be the previous user's: it was discarded meanwhile. */
  async #renew(): Promise<IssuedToken | null | undefined> {
    const discards = this.#discards;
    const isDiscarded = (): boolean => discards !== this.#discards;
    try {
      const token = await this.#request(AbortSignal.timeout(TOKEN_TIMEOUT));
      if (isDiscarded()) {
        return undefined;
      }
      this.#keep(token);
      return token;
    } finally {
      if (!isDiscarded()) {
        this.#pending = null;
      }
    }
  }

  #keep(token: IssuedToken | null): void {
    this.#token = token;
    if (token === null) {
      return;
    }
    const isOfAnotherUser = this.#subject.changes(token.token);
    this.#subject.note(token.token);
    if (isOfAnotherUser) {
      this.#onSubjectChange();
    }
  }
}

/** Return the value of a promise, or reject when the signal aborts. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    signal.aborted && abort();
    signal.addEventListener("abort", abort, { once: true });
    void promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
