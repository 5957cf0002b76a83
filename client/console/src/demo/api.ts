/** The HTTP interface of the demo's site. */

import { invalidResponse, request } from "../lib/http";
import { isRecord, stringField } from "../lib/untrusted";

export interface Task {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly accepts: { readonly extension: string; readonly columns: readonly string[] } | null;
}

/** Return the signed-in user; null if there is none. */
export async function getUser(): Promise<string | null> {
  const body = await request("GET", "/api/session");
  return isRecord(body) && "user" in body ? stringField(body, "user") : invalidResponse();
}

export async function signIn(name: string): Promise<string> {
  return parseUser(
    await request("POST", "/api/session", {
      body: JSON.stringify({ name }),
      headers: { "Content-Type": "application/json" },
    }),
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

/** Start a task with a file or, without one, with the sample input. Returns the job's id. */
export async function startJob(name: string, file: File | null): Promise<string> {
  const path = `/api/jobs/${encodeURIComponent(name)}`;
  const init = file === null ? {} : { body: file, headers: { "Content-Type": "text/csv" } };
  return stringField(await request("POST", path, init), "job_id") ?? invalidResponse();
}

function parseUser(body: unknown): string {
  return stringField(body, "user") ?? invalidResponse();
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
