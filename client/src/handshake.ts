/** Where the server is, and how it answers a connection that it does not open. */

// `localhost:8000` is a URL too, of which the protocol is `localhost:`.
const PROTOCOLS: ReadonlySet<string> = new Set(["http:", "https:", "ws:", "wss:"]);

export interface Address {
  readonly origin: string;
  readonly path: string;
}

/**
 * The address of a server; by default that of the page.
 *
 * @throws TypeError if the URL is none, or there is no page.
 */
export function addressOf(url: string | undefined): Address {
  const page = typeof location === "undefined" ? undefined : location.href;
  if (url === undefined && page === undefined) {
    throw new TypeError("outside of a page the client needs the url of the server");
  }
  const { origin, pathname, protocol } = new URL(url ?? "/", page);
  if (!PROTOCOLS.has(protocol)) {
    throw new TypeError(`the url of the server has to be one of http or https: ${url}`);
  }
  return { origin, path: `${pathname.replace(/\/$/, "")}/socket.io` };
}

/** The HTTP status behind an error of a transport, as Node's WebSocket and long polls know it. */
export function statusOf(error: Error): number | null {
  const { description } = error as { description?: unknown };
  if (typeof description === "number") {
    return description >= 100 ? description : null;
  }
  const { message } = (description ?? {}) as { message?: unknown };
  const found = typeof message === "string" ? /server response: (\d{3})/.exec(message) : null;
  return found ? Number(found[1]) : null;
}

/**
 * The HTTP status with which the server answers a page; null if it cannot be had. A browser hides
 * it from a WebSocket. A POST has the page's origin also where that is the server's.
 */
export async function probe(url: string | undefined): Promise<number | null> {
  if (typeof location === "undefined" || typeof fetch !== "function") {
    return null;
  }
  try {
    const { origin, path } = addressOf(url);
    const { href } = new URL(`${path}/?EIO=4&transport=polling`, origin.replace(/^ws/, "http"));
    const { status } = await fetch(href, { method: "POST", credentials: "omit" });
    // The server's own answer to a POST without a session: it would have let the page in.
    return status === 400 ? null : status;
  } catch {
    return null; // nothing answers, or not to a page of this origin
  }
}
