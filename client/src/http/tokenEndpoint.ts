import { ConnectionRefused } from "../errors.js";
import { isToken } from "../parse.js";

/** Where a page requests tokens, and what it sends along. */
export interface TokenEndpoint {
  readonly url: string;
  /** The header that proves that the request comes from the page, and its value. */
  readonly csrf?: { readonly header: string; readonly token: string } | undefined;
}

/** A token, and what the endpoint knows of it. */
export interface IssuedToken {
  readonly token: string;
  /** When the token expires: ms since the epoch; `Infinity` if it is unknown. */
  readonly expiresAt: number;
  /** The URL of the jobcast server, if the endpoint names it. */
  readonly serverUrl?: string | undefined;
}

/**
 * Request a token. Returns null if no user is signed in.
 *
 * @throws ConnectionRefused if the application takes the request for one of another site.
 * @throws Error if the endpoint cannot be reached, or its answer has no token.
 */
export async function requestIssuedToken(
  { url, csrf }: TokenEndpoint,
  signal: AbortSignal,
): Promise<IssuedToken | null> {
  const response = await fetch(url, {
    method: "POST",
    headers: { Accept: "application/json", ...(csrf ? { [csrf.header]: csrf.token } : {}) },
    credentials: "same-origin",
    cache: "no-store",
    // A redirect leads to a page for people: the login.
    redirect: "manual",
    signal,
  });
  if (await isCrossSiteRefusal(response)) {
    throw new ConnectionRefused("forbidden", crossSiteMessage(response));
  }
  if (isSignedOut(response)) {
    return null;
  }
  if (!response.ok) {
    throw new Error(`no token: ${url} answers with HTTP status ${response.status}`);
  }
  return parseAnswer(await response.json(), url);
}

/** Return whether a framework's protection against cross-site requests refuses the page. */
async function isCrossSiteRefusal(response: Response): Promise<boolean> {
  const { status } = response;
  // Django and DRF answer with 403, Flask-WTF with 400. A login form has a `csrfmiddlewaretoken`.
  return (status === 403 || status === 400) && /\bCSRF\b/.test(await response.text());
}

function crossSiteMessage({ status, url }: Response): string {
  const origin = typeof location === "undefined" ? "its origin" : location.origin;
  return (
    `the application refuses this page (${url}: HTTP status ${status}, CSRF): it has to trust ` +
    `${origin} (Django: CSRF_TRUSTED_ORIGINS), and csrf-token has to be the page's current token`
  );
}

function isSignedOut({ type, status }: Response): boolean {
  const isRedirect = type === "opaqueredirect" || (status >= 300 && status < 400);
  return isRedirect || status === 401 || status === 403;
}

function parseAnswer(answer: unknown, endpoint: string): IssuedToken {
  const { token, expires_at, url } = Object(answer) as Record<string, unknown>;
  if (!isToken(token)) {
    throw new TypeError(`no token: the answer of ${endpoint} has to be JSON with the field token`);
  }
  return {
    token,
    expiresAt: toTime(expires_at),
    serverUrl: typeof url === "string" && url !== "" ? url : undefined,
  };
}

/** Endpoints name the time in RFC 3339 or in seconds since the epoch. */
function toTime(value: unknown): number {
  const time = typeof value === "number" ? value * 1000 : Date.parse(String(value));
  return Number.isFinite(time) ? time : Number.POSITIVE_INFINITY;
}
