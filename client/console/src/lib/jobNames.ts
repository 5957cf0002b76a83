/** Names of jobs. */

import type { JobState } from "@jobcast/client";
import { upperFirst } from "./formatNumber";

const UUID_HEAD = 8; // characters, enough to distinguish jobs
const MAX_LENGTH = 18; // characters of a short id

/** Shorten an id: to the head of a UUID, or the tail of an id such as `task-0a1b2c3d`. */
export function shortId(jobId: string): string {
  if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/i.test(jobId)) {
    return jobId.slice(0, UUID_HEAD);
  }
  const tail = /-([0-9a-f]{8,16})$/i.exec(jobId)?.[1];
  if (tail) {
    return tail;
  }
  return jobId.length > MAX_LENGTH ? `${jobId.slice(0, MAX_LENGTH - 1)}…` : jobId;
}

/** Return a job's display name: its title, or its task's name, or its id. */
export function jobName(jobId: string, title: string | null, task: JobState["task"]): string {
  if (title) {
    return title;
  }
  const name = task?.split(".").at(-1)?.replaceAll("_", " ").trim();
  return name ? upperFirst(name) : `Job ${jobId}`;
}
