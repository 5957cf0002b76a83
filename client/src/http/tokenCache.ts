import { SubjectWatch } from "../token.js";
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

  /** @param onSubjectChange is called before a token of another user than the last one is used. */
  constructor(request: RequestToken, onSubjectChange: () => void) {
    this.#request = request;
    this.#onSubjectChange = onSubjectChange;
  }

  /** Return a token that is still valid; null if no user is signed in. */
  async get(signal: AbortSignal): Promise<IssuedToken | null> {
    if (this.#token === null || this.#token.expiresAt - Date.now() < LEAST_LIFETIME) {
      this.#token = await this.#request(signal);
      if (this.#token && this.#subject.isChangedBy(this.#token.token)) {
        this.#onSubjectChange();
      }
    }
    return this.#token;
  }

  discard(): void {
    this.#token = null;
  }
}
