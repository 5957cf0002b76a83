/** The HTTP interface of the demo's site. */

import { syncClock } from "../lib/serverClock";
import { isRecord, stringField } from "../lib/untrusted";

export interface Task {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly accepts: { readonly extension: string; readonly columns: readonly string[] } | null;
}

export interface SentJob {
  readonly jobId: string;
  readonly task: string | null;
  readonly title: string | null;
  readonly sentAt: string | null;
}

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

export interface SessionInfo {
  /** The user's name; null if no user is signed in. */
  readonly user: string | null;
  /** Whether this page has its own sign-in and sign-out. */
  readonly demonstration: boolean;
}

export async function getSession(): Promise<SessionInfo> {
  const body = await request("GET", "/api/session");
  if (!isRecord(body) || !("user" in body)) {
    return invalidResponse();
  }
  return { user: stringField(body, "user"), demonstration: body.demonstration === true };
}

export async function signIn(name: string): Promise<string> {
  return parseUser(
    await request("POST", "/api/session", JSON.stringify({ name }), "application/json"),
  );
}

export async function signOut(): Promise<void> {
  await request("DELETE", "/api/session");
}

export async function getToken(): Promise<string> {
  return stringField(await request("POST", "/api/token"), "token") ?? invalidResponse();
}

export async function getTasks(): Promise<readonly Task[]> {
  return parseList(await request("GET", "/api/tasks"), "tasks").flatMap((task) => {
    const name = stringField(task, "name");
    return name === null
      ? []
      : [
          {
            name,
            title: stringField(task, "title") ?? name,
            description: stringField(task, "description") ?? "",
            accepts: parseAccepts(task),
          },
        ];
  });
}

export async function getJobs(): Promise<readonly SentJob[]> {
  return parseList(await request("GET", "/api/jobs"), "jobs").flatMap((job) => parseJob(job) ?? []);
}

/** Start a task with a file or, without one, with the sample input. */
export async function startJob(name: string, file: File | null): Promise<SentJob> {
  const path = `/api/jobs/${encodeURIComponent(name)}`;
  return parseJob(await request("POST", path, file, file ? "text/csv" : null)) ?? invalidResponse();
}

export async function removeJob(jobId: string): Promise<void> {
  await request("DELETE", `/api/jobs/${encodeURIComponent(jobId)}`);
}

async function request(
  method: string,
  path: string,
  body: BodyInit | null = null,
  type: string | null = null,
): Promise<unknown> {
  const sentAt = Date.now();
  const headers = type === null ? {} : { "Content-Type": type };
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, { method, body, headers, credentials: "same-origin" });
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
      stringField(content, "message") ?? `The server answered with HTTP status ${response.status}.`,
    );
  }
  return content;
}

function parseJson(text: string): unknown {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null; // not from the server but from a proxy; the status is all there is to report
  }
}

function parseUser(body: unknown): string {
  return stringField(body, "user") ?? invalidResponse();
}

function parseJob(job: unknown): SentJob | null {
  const jobId = stringField(job, "job_id");
  return jobId === null
    ? null
    : {
        jobId,
        task: stringField(job, "task"),
        title: stringField(job, "title"),
        sentAt: stringField(job, "sent_at"),
      };
}

function parseAccepts(task: unknown): Task["accepts"] {
  const { accepts } = isRecord(task) ? task : {};
  const extension = stringField(accepts, "extension");
  if (extension === null || !isRecord(accepts)) {
    return null;
  }
  const { columns } = accepts;
  return { extension, columns: Array.isArray(columns) ? columns.map(String) : [] };
}

function parseList(body: unknown, key: string): readonly unknown[] {
  const list = isRecord(body) ? body[key] : null;
  return Array.isArray(list) ? list : invalidResponse();
}

function invalidResponse(): never {
  throw new ApiError(200, "invalid_response", "The server sent an invalid answer.");
}
