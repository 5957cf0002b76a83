/** What jobs are called. */

import type { JobState } from "@jobcast/client";
import { upperFirst } from "./numbers";

const UUID_HEAD = 8; // characters that tell jobs apart, for people
const LONG = 18;

/** What is enough of an id to tell jobs apart: the head of a UUID, the tail of `task-0a1b2c3d`. */
export function shortId(jobId: string): string {
  if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/i.test(jobId)) {
    return jobId.slice(0, UUID_HEAD);
  }
  const tail = /-([0-9a-f]{8,16})$/i.exec(jobId)?.[1];
  if (tail) {
    return tail;
  }
  return jobId.length > LONG ? `${jobId.slice(0, LONG - 1)}…` : jobId;
}

/** A title for people: the list's, or one made of the task's name, or the id. */
export function nameOf(jobId: string, title: string | null, task: JobState["task"]): string {
  if (title) {
    return title;
  }
  const name = task?.split(".").at(-1)?.replaceAll("_", " ").trim();
  return name ? upperFirst(name) : `Job ${jobId}`;
}
