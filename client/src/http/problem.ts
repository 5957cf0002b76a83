/** The answer of a server that refuses a request. */
export interface Problem {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  /** Seconds after which the client may repeat the request. */
  readonly retry_after?: number;
}

export const FORBIDDEN =
  "the server refuses this page (403): JOBCAST_CORS_ORIGINS has to contain its origin";

/** Read a problem document (RFC 9457). Proxies answer with other documents. */
export async function readProblem(response: Response): Promise<Problem> {
  const { status } = response;
  const document: unknown = await response.json().catch(() => null);
  const { code, detail } = Object(document) as Record<string, unknown>;
  const seconds = Number(response.headers.get("Retry-After") ?? Number.NaN);
  return {
    status,
    code: typeof code === "string" ? code : status === 403 ? "forbidden" : "not_available",
    message: typeof detail === "string" ? detail : describeStatus(response),
    ...(seconds >= 0 ? { retry_after: seconds } : {}),
  };
}

/** Return the problem of an answer that is not the server's: a proxy or an application sent it. */
export function foreignAnswer(response: Response): Problem {
  const { status } = response;
  return { status, code: "not_available", message: describeStatus(response) };
}

/** Return whether the same request may succeed later. */
export function isTemporary({ status }: Problem): boolean {
  return status === 429 || status >= 500;
}

/** Return whether a request for fewer jobs may succeed. A server or a proxy limits the URL, too. */
export function hasTooManyJobs({ code, status }: Problem): boolean {
  return code === "too_many_jobs" || status === 414 || status === 431;
}

function describeStatus({ status, url }: Response): string {
  if (status === 403) {
    return FORBIDDEN;
  }
  // An application may answer unknown paths with its own page.
  return status === 404 || status === 200
    ? `no jobcast server at ${url} (${status}): check the base-url attribute`
    : `the server answers with HTTP status ${status}`;
}
