import type { Transport } from "./connection.js";
import type { GetToken } from "./token.js";

export interface JobClientOptions {
  /** The server's URL, such as `https://jobs.example.com`. Default: the page's own origin. */
  readonly url?: string | undefined;
  /**
   * Returns a token, or null if no user is signed in. The client calls it for each connection and
   * before a token expires. The option is null for a client without tokens: the server then
   * identifies the user by the cookies of the browser (`JOBCAST_AUTHENTICATE`).
   */
  readonly getToken: GetToken | null;
  /** The transports, in the order in which the client tries them. Default: `["websocket"]`. */
  readonly transports?: readonly Transport[] | undefined;
  /** The Socket.IO namespace that the server attaches jobcast to. Default: `/`. */
  readonly namespace?: string | undefined;
  /** The number of log lines to keep per job. Default: 1000. */
  readonly logLimit?: number | undefined;
}

const TRANSPORTS: readonly unknown[] = ["websocket", "polling"] satisfies Transport[];

/**
 * Check options at run time: JavaScript callers have no types, and a later error would have no
 * caller to throw to.
 *
 * @throws TypeError or RangeError that names the option.
 */
export function checkOptions(options: JobClientOptions): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError("createJobClient: options has to be an object with getToken");
  }
  const { url, getToken, transports, namespace, logLimit } = options;
  if (typeof getToken !== "function" && getToken !== null) {
    throw new TypeError("createJobClient: getToken has to be a function, or null for cookies");
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
    throw new RangeError(
      'createJobClient: transports has to contain "websocket", "polling" or both',
    );
  }
}

function checkNamespace(namespace: string): void {
  if (typeof namespace !== "string") {
    throw new TypeError("createJobClient: namespace has to be a string");
  }
  if (!/^\/[^,?#]*$/.test(namespace)) {
    throw new RangeError(
      "createJobClient: namespace has to start with / and must not contain , ? or #",
    );
  }
}

function checkLogLimit(logLimit: number): void {
  if (typeof logLimit !== "number") {
    throw new TypeError("createJobClient: logLimit has to be a number");
  }
  if (!(logLimit >= 0 && (Number.isInteger(logLimit) || logLimit === Infinity))) {
    throw new RangeError(
      "createJobClient: logLimit has to be an integer of 0 or more, or Infinity",
    );
  }
}
