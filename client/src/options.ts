import type { Transport } from "./link.js";
import type { GetToken } from "./token.js";

export interface JobClientOptions {
  /** The server, as `https://jobs.example.com`. By default the page's own origin. */
  readonly url?: string | undefined;
  /** Gives a token, or null if nobody is signed in. Asked at each connection, and before expiry. */
  readonly getToken: GetToken;
  /** In the order in which they are tried; `["websocket"]` by default. */
  readonly transports?: readonly Transport[] | undefined;
  /** The Socket.IO namespace that the server attaches jobcast to; `/` by default. */
  readonly namespace?: string | undefined;
  /** Log lines that are kept of a job; 1000 by default. */
  readonly logLimit?: number | undefined;
}

const TRANSPORTS: readonly unknown[] = ["websocket", "polling"] satisfies Transport[];

/**
 * Types hold nobody who writes JavaScript, and later there is nobody left to throw at.
 *
 * @throws TypeError or RangeError that names the option.
 */
export function checkOptions(options: JobClientOptions): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError("createJobClient: it needs options, an object with getToken");
  }
  const { url, getToken, transports, namespace, logLimit } = options;
  if (typeof getToken !== "function") {
    throw new TypeError("createJobClient: getToken has to be a function");
  }
  if (url !== undefined && typeof url !== "string") {
    throw new TypeError("createJobClient: url has to be a string");
  }
  if (transports !== undefined) {
    checkTransports(transports);
  }
  if (namespace !== undefined) {
    checkNamespace(namespace);
  }
  if (logLimit !== undefined) {
    checkLogLimit(logLimit);
  }
}

function checkTransports(transports: readonly unknown[]): void {
  if (!Array.isArray(transports)) {
    throw new TypeError("createJobClient: transports has to be an array");
  }
  if (transports.length === 0 || !transports.every((name) => TRANSPORTS.includes(name))) {
    throw new RangeError('createJobClient: transports may have "websocket" and "polling", or one');
  }
}

function checkNamespace(namespace: string): void {
  if (typeof namespace !== "string") {
    throw new TypeError("createJobClient: namespace has to be a string");
  }
  if (!/^\/[^,?#]*$/.test(namespace)) {
    throw new RangeError("createJobClient: namespace has to begin with / and have no , ? or #");
  }
}

function checkLogLimit(logLimit: number): void {
  if (typeof logLimit !== "number") {
    throw new TypeError("createJobClient: logLimit has to be a number");
  }
  if (!(logLimit >= 0 && (Number.isInteger(logLimit) || logLimit === Infinity))) {
    throw new RangeError("createJobClient: logLimit has to be a whole number, 0 or more");
  }
}
