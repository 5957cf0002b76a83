import type { IssuedToken } from "./tokenEndpoint.js";

const LEAST_LIFETIME = 5000; // ms that a token has to be valid for another request

/** Returns a token; null if no user is signed in. */
export type RequestToken = (signal: AbortSignal) => Promise<IssuedToken | null>;

/** Keeps a token for the next requests until it expires or is refused. */
export class TokenCache {
  readonly #request: RequestToken;
  #token: IssuedToken | null = null;

  constructor(request: RequestToken) {
    this.#request = request;
  }

  /** Return a token that is still valid; null if no user is signed in. */
  async get(signal: AbortSignal): Promise<IssuedToken | null> {
    if (this.#token === null || this.#token.expiresAt - Date.now() < LEAST_LIFETIME) {
      this.#token = await this.#request(signal);
    }
    return this.#token;
  }

  discard(): void {
    this.#token = null;
  }
}
