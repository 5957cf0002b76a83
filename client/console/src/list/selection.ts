/** The jobs that a view shows, in their order, and the counts of its groups. */

import type { JobSummary } from "@jobcast/client";
import { isCancellation } from "../lib/statusBadge";
import { AGES, GROUPS, type Group, type View } from "../lib/view";
import { hasEnded, isWaiting, stuckReason } from "./stuck";

export type Counts = Readonly<Record<Group, number>>;

export interface Selection {
  /** The stuck jobs, and then the others, each the newest first. */
  readonly jobs: readonly JobSummary[];
  /** The number of jobs in each group that match the rest of the view. */
  readonly counts: Counts;
}

/**
 * Select the jobs of a view.
 *
 * @param jobs the jobs of the feed, the newest first.
 * @param now the server's time in ms.
 */
export function selectJobs(jobs: readonly JobSummary[], view: View, now: number): Selection {
  const matches = matcherOf(view, now);
  const counts: Record<Group, number> = {
    all: 0,
    stuck: 0,
    queued: 0,
    running: 0,
    failed: 0,
    cancelled: 0,
    done: 0,
  };
  const stuck: { readonly job: JobSummary; readonly rank: number }[] = [];
  const others: JobSummary[] = [];
  for (const job of jobs) {
    if (!matches(job)) {
      continue;
    }
    const group = groupOf(job);
    const { rank } = stuckReason(job, now) ?? {};
    counts.all += 1;
    counts[group] += 1;
    counts.stuck += rank === undefined ? 0 : 1;
    if (
      view.group !== "all" &&
      view.group !== group &&
      !(view.group === "stuck" && rank !== undefined)
    ) {
      continue;
    }
    if (rank === undefined) {
      others.push(job);
    } else {
      stuck.push({ job, rank });
    }
  }
  stuck.sort((one, other) => one.rank - other.rank); // a stable sort: the newest stay first
  return { jobs: [...stuck.map(({ job }) => job), ...others], counts };
}

/** Return the group of a job's state. */
export function groupOf(job: JobSummary): Exclude<Group, "all" | "stuck"> {
  if (job.status === "complete") {
    return "done";
  }
  if (job.status === "cancelled" || isCancellation(job.reason)) {
    return "cancelled";
  }
  if (hasEnded(job)) {
    return "failed";
  }
  return isWaiting(job) ? "queued" : "running";
}

export function isGroup(name: string): name is Group {
  return (GROUPS as readonly string[]).includes(name);
}

function matcherOf(view: View, now: number): (job: JobSummary) => boolean {
  const { task, tag, owner, since } = view;
  const oldest = since === null ? Number.NEGATIVE_INFINITY : now - AGES[since];
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  return (job) =>
    (task === null || job.task === task) &&
    (tag === null || job.tags.includes(tag)) &&
    (owner === null || job.owner === owner) &&
    (since === null || Date.parse(job.createdAt) >= oldest) &&
    words.every((word) => searchText(job).includes(word));
}

const texts = new WeakMap<JobSummary, string>();

/** Return the text of a job that a search looks into, in lower case. */
function searchText(job: JobSummary): string {
  let text = texts.get(job);
  if (text === undefined) {
    const { jobId, title, task, tags, owner, queue, worker } = job;
    const outcome = hasEnded(job) ? job.message : null; // the message of a running job is volatile
    text = [jobId, title, task, ...tags, owner, queue, worker, outcome].join("\n").toLowerCase();
    texts.set(job, text);
  }
  return text;
}
