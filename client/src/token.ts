import { isToken } from "./parse.js";
import type { Timers } from "./timers.js";

type MaybeToken = string | null | undefined;

/**
 * Returns a token, or an empty value (`null`, `undefined` or `""`) if no user is signed in. The client
 * calls it for each connection and before a token expires. If it throws or rejects, the client
 * reports `token_unavailable` and retries.
 */
export type GetToken = () => MaybeToken | Promise<MaybeToken>;

/** The time within which a source of tokens has to settle, in ms. */
export const TOKEN_TIMEOUT = 15_000;

/**
 * Return the token that `getToken` provides, or null if no user is signed in. The promise rejects if
 * `getToken` throws, rejects, times out, or returns anything else.
 */
export function requestToken(getToken: GetToken, timers: Timers): Promise<string | null> {
  return new Promise((resolve, reject) => {
    const cancel = timers.after(TOKEN_TIMEOUT, () =>
      reject(new Error(`getToken did not settle within ${TOKEN_TIMEOUT / 1000} seconds`)),
    );
    new Promise<unknown>((settle) => settle(getToken()))
      .then((token) => {
        const isMissing = token === null || token === undefined || token === "";
        if (!isMissing && !isToken(token)) {
          throw new TypeError(
            "getToken has to return a string of 1 to 8192 characters, or null if no user is signed in",
          );
        }
        resolve(isMissing ? null : token);
      })
      .catch(reject)
      .finally(cancel);
  });
}

/**
 * Return the subject of a token, so that the data of one user is not shown to the next one. Only the
 * server verifies tokens. Returns null for a token that is no JSON Web Token.
 */
export function subjectOf(token: string): string | null {
  const payload = token.split(".")[1] ?? "";
  try {
    const claims: unknown = JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
    const subject = isClaims(claims) ? claims.sub : undefined;
    return subject === undefined ? null : String(subject);
  } catch {
    return null; // a token of another format, or a runtime without `atob`
  }
}

function isClaims(value: unknown): value is { readonly sub?: unknown } {
  return typeof value === "object" && value !== null;
}

/** Knows the user of the latest token, to notice the next one. */
export class SubjectWatch {
  #subject: string | null = null;

  /** Return whether a token belongs to another user than the last one whose user is known. */
  changes(token: string): boolean {
    const subject = subjectOf(token);
    return this.#subject !== null && subject !== null && subject !== this.#subject;
  }

  /** Remember the user of a token, if it names one. */
  note(token: string): void {
    this.#subject = subjectOf(token) ?? this.#subject;
  }
}
