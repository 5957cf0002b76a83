/** Requests to the server that the page comes from. */

import { syncClock } from "./serverClock";
import { stringField } from "./untrusted";

/** The server rejected a request, or did not answer (`status` 0). The message is for people. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * Send a request and return the JSON of the answer; null if it has none.
 *
 * @throws ApiError
 */
export async function request(
  method: string,
  path: string,
  init: { readonly body?: BodyInit | null; readonly headers?: Record<string, string> } = {},
): Promise<unknown> {
  const sentAt = Date.now();
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      cache: "no-store",
      ...init,
    });
    text = await response.text();
  } catch {
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  }
  syncClock(response.headers.get("Date"), sentAt, Date.now());
  const content = parseJson(text);
  if (!response.ok) {
    throw new ApiError(
      response.status,
      stringField(content, "code") ?? "error",
      stringField(content, "message") ??
        stringField(content, "detail") ??
        `The server answered with HTTP status ${response.status}.`,
    );
  }
  return content;
}

/** @throws ApiError */
export function invalidResponse(): never {
  throw new ApiError(200, "invalid_response", "The server sent an invalid answer.");
}

function parseJson(text: string): unknown {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null; // not from the server but from a proxy; the status is all there is to report
  }
}
