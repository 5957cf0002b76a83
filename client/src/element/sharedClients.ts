/** Elements of a page that follow jobs with the same credentials share a client, and its streams. */

import { HttpJobClient, type HttpJobClientOptions } from "../http/httpJobClient.js";
import type { RequestToken } from "../http/tokenCache.js";
import { type IssuedToken, requestIssuedToken, type TokenEndpoint } from "../http/tokenEndpoint.js";
import { Timers } from "../timers.js";
import { type GetToken, requestToken } from "../token.js";

/** Where an element follows its job, and as whom. */
export interface Source {
  readonly baseUrl: string | undefined;
  readonly getToken: GetToken | null;
  /** A token for the first requests. */
  readonly token: string | null;
  readonly endpoint: TokenEndpoint | null;
}

const LOG_LIMIT = 1000; // lines per job
const clients = new Map<string, HttpJobClient>();
const functionIds = new WeakMap<GetToken, number>();
let functionCount = 0;

/** Return the client for a source. */
export function sharedClient(source: Source): HttpJobClient {
  const { baseUrl, token, endpoint, getToken } = source;
  const key = JSON.stringify([baseUrl, token, endpoint, getToken && idOf(getToken)]);
  let client = clients.get(key);
  if (!client) {
    const options: HttpJobClientOptions = {
      baseUrl,
      requestToken: toRequest(source),
      logLimit: LOG_LIMIT,
      onIdle: () => clients.delete(key),
    };
    client = new HttpJobClient(options);
    clients.set(key, client);
  }
  return client;
}

function idOf(getToken: GetToken): number {
  const id = functionIds.get(getToken) ?? ++functionCount;
  functionIds.set(getToken, id);
  return id;
}

/** Return the source of tokens: the function, the token and then the endpoint, or null for cookies. */
function toRequest({ getToken, token, endpoint }: Source): RequestToken | null {
  if (getToken) {
    const timers = new Timers();
    return async () => toIssued(await requestToken(getToken, timers));
  }
  let first = toIssued(token);
  if (endpoint) {
    return async (signal) => {
      const issued = first ?? (await requestIssuedToken(endpoint, signal));
      first = null;
      return issued;
    };
  }
  return first && (async () => first);
}

function toIssued(token: string | null): IssuedToken | null {
  return token === null ? null : { token, expiresAt: Number.POSITIVE_INFINITY };
}
