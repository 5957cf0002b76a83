import { isToken } from "./parse.js";
import type { Timers } from "./timers.js";

/** Gives a token. It is asked at each connection, and before a token expires. */
export type GetToken = () => string | Promise<string>;

const TOKEN_TIMEOUT = 15_000; // ms that `getToken` may take

/** What `getToken` gives. Rejects if it throws, rejects, takes too long, or gives no token. */
export function askToken(getToken: GetToken, timers: Timers): Promise<string> {
  return new Promise((resolve, reject) => {
    const cancel = timers.after(TOKEN_TIMEOUT, () =>
      reject(new Error(`getToken gave no answer in ${TOKEN_TIMEOUT / 1000} seconds`)),
    );
    new Promise<unknown>((answer) => answer(getToken()))
      .then((token) => {
        if (!isToken(token)) {
          throw new TypeError("getToken did not give a token: a text of 1 to 8192 characters");
        }
        resolve(token);
      })
      .catch(reject)
      .finally(cancel);
  });
}
