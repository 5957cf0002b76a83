import { isToken } from "./parse.js";
import type { Timers } from "./timers.js";

type Given = string | null | undefined;

/**
 * Gives a token, or nothing (`null`, `undefined`, `""`) if nobody is signed in. It is asked at each
 * connection, and before a token expires.
 */
export type GetToken = () => Given | Promise<Given>;

const TOKEN_TIMEOUT = 15_000; // ms that `getToken` may take

/**
 * What `getToken` gives; null if nobody is signed in. Rejects if it throws, rejects, takes too long,
 * or gives something else.
 */
export function askToken(getToken: GetToken, timers: Timers): Promise<string | null> {
  return new Promise((resolve, reject) => {
    const cancel = timers.after(TOKEN_TIMEOUT, () =>
      reject(new Error(`getToken gave no answer in ${TOKEN_TIMEOUT / 1000} seconds`)),
    );
    new Promise<unknown>((answer) => answer(getToken()))
      .then((token) => {
        const isNone = token === null || token === undefined || token === "";
        if (!isNone && !isToken(token)) {
          throw new TypeError(
            "getToken should give a text of 1 to 8192 characters, or null if nobody is signed in",
          );
        }
        resolve(isNone ? null : token);
      })
      .catch(reject)
      .finally(cancel);
  });
}
