/** Elements of a page that follow jobs with the same credentials share a client, and its streams. */

import { HttpJobClient } from "../http/httpJobClient.js";
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
const clients = new Map<string, SharedClient>();
const functionIds = new WeakMap<GetToken, number>();
let functionCount = 0;

/** A client, and what the latest of its elements has. */
interface SharedClient {
  readonly client: HttpJobClient;
  source: Source;
}

/** Return the client for a source. */
export function sharedClient(source: Source): HttpJobClient {
  const key = keyOf(source);
  const shared = clients.get(key) ?? createClient(key, source);
  shared.source = source;
  return shared.client;
}

function createClient(key: string, source: Source): SharedClient {
  const client = new HttpJobClient({
    baseUrl: source.baseUrl,
    requestToken: toRequest(source, () => shared.source.endpoint),
    logLimit: LOG_LIMIT,
    onIdle: () => clients.delete(key),
  });
  const shared: SharedClient = { client, source };
  clients.set(key, shared);
  return shared;
}

/** Frameworks write another CSRF token into each element and each fragment; all of them are valid. */
function keyOf({ baseUrl, token, endpoint, getToken }: Source): string {
  const { url, csrf } = endpoint ?? {};
  return JSON.stringify([baseUrl, token, url, csrf?.header, getToken && idOf(getToken)]);
}

function idOf(getToken: GetToken): number {
  const id = functionIds.get(getToken) ?? ++functionCount;
  functionIds.set(getToken, id);
  return id;
}

/** Return the source of tokens: the function, the token and then the endpoint, or null for cookies. */
function toRequest(
  { getToken, token, endpoint }: Source,
  latestEndpoint: () => TokenEndpoint | null,
): RequestToken | null {
  if (getToken) {
    const timers = new Timers();
    return async () => toIssued(await requestToken(getToken, timers));
  }
  let first = toIssued(token);
  if (endpoint) {
    return async (signal) => {
      const issued = first ?? (await requestIssuedToken(latestEndpoint() ?? endpoint, signal));
      first = null;
      return issued;
    };
  }
  return first && (async () => first);
}

function toIssued(token: string | null): IssuedToken | null {
  return token === null ? null : { token, expiresAt: Number.POSITIVE_INFINITY };
}
