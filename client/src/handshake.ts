/** The server's address, and the HTTP status behind a failed handshake. */

// `new URL("localhost:8000")` succeeds, with the protocol `localhost:`.
const PROTOCOLS: ReadonlySet<string> = new Set(["http:", "https:", "ws:", "wss:"]);

// The `URL` of React Native may have no `origin` and no `pathname`.
const ABSOLUTE = /^((?:http|ws)s?:\/\/[^/?#\s]+)([^?#\s]*)/i;

export interface Address {
  readonly origin: string;
  readonly path: string;
}

/**
 * Parse the server's URL. The default is the page's own origin.
 *
 * @throws TypeError if the URL is invalid, or if it is missing outside of a page.
 */
export function parseAddress(url: string | undefined): Address {
  if (isReactNative()) {
    return parseAbsolute(url);
  }
  const page = typeof location === "undefined" ? undefined : location.href;
  if (url === undefined && page === undefined) {
    throw new TypeError("the url option is missing; outside of a page it is required");
  }
  const { origin, pathname, protocol } = new URL(url ?? "/", page);
  if (!PROTOCOLS.has(protocol)) {
    throw new TypeError(`the url option has to be an http(s) or ws(s) URL, not ${url}`);
  }
  return { origin, path: socketPath(pathname) };
}

function parseAbsolute(url: string | undefined): Address {
  const [, origin, pathname] = ABSOLUTE.exec(url ?? "") ?? [];
  if (!origin) {
    throw new TypeError(`the url option has to be an absolute http(s) or ws(s) URL, not ${url}`);
  }
  return { origin, path: socketPath(pathname ?? "") };
}

function socketPath(pathname: string): string {
  return `${pathname.replace(/\/$/, "")}/socket.io`;
}

/** Return whether the runtime is React Native, as socket.io-client detects it. */
function isReactNative(): boolean {
  return typeof navigator !== "undefined" && navigator.product === "ReactNative";
}

/** Return the HTTP status behind a transport error, or null. Node and HTTP polling report it. */
export function httpStatus(error: Error): number | null {
  const { description } = error as { description?: unknown };
  if (typeof description === "number") {
    return description >= 100 ? description : null;
  }
  const { message } = (description ?? {}) as { message?: unknown };
  const found = typeof message === "string" ? /server response: (\d{3})/.exec(message) : null;
  return found ? Number(found[1]) : null;
}

/** Return whether the server has the origin of this page. */
export function isOwnServer(url: string | undefined): boolean {
  return typeof location !== "undefined" && parseAddress(url).origin === location.origin;
}

/**
 * Return the HTTP status with which the server refuses this page, `"accepted"` if it does not, or null
 * if it cannot be reached. Browsers hide the status of a WebSocket handshake. The request is a POST
 * because browsers send an `Origin` header with every POST; its query makes the server check the page
 * as with the transport.
 */
export async function probeStatus(
  url: string | undefined,
  transport: string,
): Promise<number | "accepted" | null> {
  if (typeof location === "undefined" || typeof fetch !== "function") {
    return null;
  }
  try {
    const { origin, path } = parseAddress(url);
    const { href } = new URL(
      `${path}/?EIO=4&transport=${transport}`,
      origin.replace(/^ws/, "http"),
    );
    const answer = await fetch(href, { method: "POST", credentials: "omit", redirect: "error" });
    // A POST has no session here. python-engineio misses it only once the page is accepted.
    const isAccepted = answer.status === 400 && (await answer.text()).includes("Invalid session");
    return isAccepted ? "accepted" : answer.status;
  } catch {
    return null; // unreachable, or hidden from pages of this origin
  }
}
