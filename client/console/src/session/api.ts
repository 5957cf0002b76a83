/** The reference application's HTTP interface. */

import { learn } from "../lib/clock";
import { isRecord, textOf } from "../lib/records";

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

/** The server said no, or said nothing (`status` 0). The message is for people. */
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

export interface WhoIsThere {
  /** Null if nobody is signed in. */
  readonly user: string | null;
  /** Whether one signs in, and out, on this page. */
  readonly demonstration: boolean;
}

export async function getSession(): Promise<WhoIsThere> {
  const answer = await ask("GET", "/api/session");
  if (!isRecord(answer) || !("user" in answer)) {
    return broken();
  }
  return { user: textOf(answer, "user"), demonstration: answer.demonstration === true };
}

export async function signIn(name: string): Promise<string> {
  return userOf(await ask("POST", "/api/session", JSON.stringify({ name }), "application/json"));
}

export async function signOut(): Promise<void> {
  await ask("DELETE", "/api/session");
}

export async function getToken(): Promise<string> {
  return textOf(await ask("POST", "/api/token"), "token") ?? broken();
}

export async function getTasks(): Promise<readonly Task[]> {
  return listOf(await ask("GET", "/api/tasks"), "tasks").flatMap((task) => {
    const name = textOf(task, "name");
    return name === null
      ? []
      : [
          {
            name,
            title: textOf(task, "title") ?? name,
            description: textOf(task, "description") ?? "",
            accepts: acceptsOf(task),
          },
        ];
  });
}

export async function getJobs(): Promise<readonly SentJob[]> {
  return listOf(await ask("GET", "/api/jobs"), "jobs").flatMap((job) => jobOf(job) ?? []);
}

/** Starts a task: with a file, or with the sample's input. */
export async function startJob(name: string, file: File | null): Promise<SentJob> {
  const path = `/api/jobs/${encodeURIComponent(name)}`;
  return jobOf(await ask("POST", path, file, file ? "text/csv" : null)) ?? broken();
}

export async function removeJob(jobId: string): Promise<void> {
  await ask("DELETE", `/api/jobs/${encodeURIComponent(jobId)}`);
}

async function ask(
  method: string,
  path: string,
  body: BodyInit | null = null,
  type: string | null = null,
): Promise<unknown> {
  const asked = Date.now();
  const headers = type === null ? {} : { "Content-Type": type };
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, { method, body, headers, credentials: "same-origin" });
    text = await response.text();
  } catch {
    throw new ApiError(0, "unreachable", "The server cannot be reached.");
  }
  learn(response.headers.get("Date"), asked, Date.now());
  const answer = parsed(text);
  if (!response.ok) {
    throw new ApiError(
      response.status,
      textOf(answer, "code") ?? "error",
      textOf(answer, "message") ?? `The server answered with the status ${response.status}.`,
    );
  }
  return answer;
}

function parsed(text: string): unknown {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null; // a proxy's page: its status says what there is to know
  }
}

function userOf(answer: unknown): string {
  return textOf(answer, "user") ?? broken();
}

function jobOf(job: unknown): SentJob | null {
  const jobId = textOf(job, "job_id");
  return jobId === null
    ? null
    : {
        jobId,
        task: textOf(job, "task"),
        title: textOf(job, "title"),
        sentAt: textOf(job, "sent_at"),
      };
}

function acceptsOf(task: unknown): Task["accepts"] {
  const { accepts } = isRecord(task) ? task : {};
  const extension = textOf(accepts, "extension");
  if (extension === null || !isRecord(accepts)) {
    return null;
  }
  const { columns } = accepts;
  return { extension, columns: Array.isArray(columns) ? columns.map(String) : [] };
}

function listOf(answer: unknown, key: string): readonly unknown[] {
  const list = isRecord(answer) ? answer[key] : null;
  return Array.isArray(list) ? list : broken();
}

function broken(): never {
  throw new ApiError(200, "invalid_answer", "The server's answer is none that this page knows.");
}
