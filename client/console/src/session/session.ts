/** The user's session. */

import type { GetToken } from "@jobcast/client";
import { ApiError } from "../lib/http";
import { WritableStore } from "../lib/store";
import { errorMessage } from "../lib/untrusted";

/** What a signed-in user connects with. */
export interface Access {
  readonly user: string;
  /** The URL of the jobcast server. */
  readonly url: string;
  /** Returns the tokens of the connection; null if the browser's cookies identify the user. */
  readonly getToken: GetToken | null;
  /** Ends the session; null if the page cannot. */
  readonly signOut: (() => Promise<void>) | null;
}

/**
 * Return the access of the signed-in user; null if no user is signed in.
 *
 * @throws ApiError with status 401 if the server refuses what the user signed in with.
 */
export type LoadAccess = () => Promise<Access | null>;

export interface SignedOut {
  readonly state: "signed_out";
  /** Whether a session has just ended. */
  readonly expired: boolean;
  /** The name of the previous user. */
  readonly user: string | null;
  /** Why the server refused the user. */
  readonly reason: string | null;
}

export type SessionState =
  | { readonly state: "loading" }
  | { readonly state: "unreachable"; readonly message: string }
  | SignedOut
  | { readonly state: "signed_in"; readonly access: Access };

export class Session {
  readonly state = new WritableStore<SessionState>({ state: "loading" });
  readonly #loadAccess: LoadAccess;

  constructor(loadAccess: LoadAccess) {
    this.#loadAccess = loadAccess;
  }

  /** Load the session now, and again when the browser goes online without one. */
  start(): void {
    window.addEventListener("online", () => {
      if (this.state.getSnapshot().state === "unreachable") {
        void this.load();
      }
    });
    void this.load();
  }

  /** Ask the server for the signed-in user. */
  async load(): Promise<void> {
    try {
      const access = await this.#loadAccess();
      if (access === null) {
        this.expire();
      } else {
        this.begin(access);
      }
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.expire(error.message);
      } else if (!this.#isSignedIn) {
        this.state.set({ state: "unreachable", message: errorMessage(error) });
      }
    }
  }

  begin(access: Access): void {
    if (!this.#isSignedIn || this.#user !== access.user) {
      this.state.set({ state: "signed_in", access });
    }
  }

  /** The server does not accept the user, or no longer. */
  expire(reason: string | null = null): void {
    const before = this.state.getSnapshot();
    const expired =
      before.state === "signed_in" || (before.state === "signed_out" && before.expired);
    this.state.set({ state: "signed_out", expired, user: this.#user, reason });
  }

  /** The user signed out. */
  end(): void {
    this.state.set({ state: "signed_out", expired: false, user: this.#user, reason: null });
  }

  get #isSignedIn(): boolean {
    return this.state.getSnapshot().state === "signed_in";
  }

  get #user(): string | null {
    const now = this.state.getSnapshot();
    return now.state === "signed_in"
      ? now.access.user
      : now.state === "signed_out"
        ? now.user
        : null;
  }
}
