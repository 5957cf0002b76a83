/** Which jobs of a feed a program requests: the options, and the filter of a join. */

import { compareTimes, type JobSummary } from "./jobSummary.js";
import { isTime, MAX_FEED_LIMIT, MAX_FILTER_STATUSES } from "./parse.js";
import { type FeedFilterFields, isTerminal, type Open, type State } from "./protocol.js";

/** The default of `limit`: the number of jobs to show of a feed. */
export const DEFAULT_FEED_LIMIT = 100;

/** A state, or a name of several: `running` (begun and not ended) and `failed` (`error`). */
export type FeedStatus = Open<"running" | "failed"> | State;

type Text = string | null | undefined;

/**
 * Which jobs of a feed to show. A job has to match every option that is given; `null`, `undefined`,
 * an empty string and an empty array match all jobs.
 */
export interface FeedOptions {
  readonly status?: FeedStatus | readonly FeedStatus[] | null | undefined;
  readonly tag?: Text;
  /** The name of the Celery task. */
  readonly task?: Text;
  /** The subject that owns the jobs. */
  readonly owner?: Text;
  /** Jobs that were created then or later: RFC 3339, UTC, as `toISOString()` of a `Date` returns it. */
  readonly since?: Text;
  /** The number of jobs to show, and to add with each `loadMore()`: 1 to 10,000. Default: 100. */
  readonly limit?: number | undefined;
}

/** A filter as the server reads it. */
export type FeedFilter = Readonly<FeedFilterFields>;

const TEXTS = ["tag", "task", "owner", "since"] as const;

/**
 * Return the filter of checked options.
 *
 * @throws TypeError or RangeError that names an invalid option.
 */
export function filterOf(options: FeedOptions): FeedFilter {
  const filter: FeedFilterFields = {};
  const status = [options.status ?? []].flat().filter(Boolean);
  if (status.length > 0) {
    filter.status = [...new Set(status.map((name) => checkText("status", name)))].sort();
  }
  for (const name of TEXTS) {
    if (options[name]) {
      filter[name] = checkText(name, options[name]);
    }
  }
  if (filter.since !== undefined && !isTime(filter.since)) {
    throw new RangeError("feed: since has to be a time in RFC 3339, UTC, such as toISOString()");
  }
  return filter;
}

/** Return the checked `limit` of options. */
export function limitOf({ limit = DEFAULT_FEED_LIMIT }: FeedOptions): number {
  if (!(Number.isInteger(limit) && limit >= 1 && limit <= MAX_FEED_LIMIT)) {
    throw new RangeError(`feed: limit has to be an integer from 1 to ${MAX_FEED_LIMIT}`);
  }
  return limit;
}

/** Return whether a job matches a filter. */
export function matches(filter: FeedFilter, job: JobSummary): boolean {
  return (
    (filter.status?.some((name) => hasStatus(job, name)) ?? true) &&
    (filter.tag === undefined || job.tags.includes(filter.tag)) &&
    (filter.task === undefined || job.task === filter.task) &&
    (filter.owner === undefined || job.owner === filter.owner) &&
    (filter.since === undefined || compareTimes(job.createdAt, filter.since) >= 0)
  );
}

/** Return a filter that each job matches that matches one of the given filters. */
export function unionOf(filters: readonly FeedFilter[]): FeedFilter {
  return filters.reduce((union, filter) => {
    const wider: FeedFilterFields = {};
    for (const name of ["tag", "task", "owner"] as const) {
      if (union[name] !== undefined && union[name] === filter[name]) {
        wider[name] = union[name];
      }
    }
    if (union.since !== undefined && filter.since !== undefined) {
      wider.since = compareTimes(union.since, filter.since) < 0 ? union.since : filter.since;
    }
    const status = [...new Set([...(union.status ?? []), ...(filter.status ?? [])])].sort();
    if (union.status && filter.status && status.length <= MAX_FILTER_STATUSES) {
      wider.status = status;
    }
    return wider;
  });
}

/** Return whether each job that matches `narrow` also matches `wide`. */
export function covers(wide: FeedFilter, narrow: FeedFilter): boolean {
  return isSameFilter(unionOf([wide, narrow]), wide);
}

export function isSameFilter(one: FeedFilter, other: FeedFilter): boolean {
  return TEXTS.every((name) => one[name] === other[name]) && sameStatus(one, other);
}

export function isEmptyFilter(filter: FeedFilter): boolean {
  return Object.keys(filter).length === 0;
}

function sameStatus(one: FeedFilter, other: FeedFilter): boolean {
  return one.status?.join("\0") === other.status?.join("\0");
}

function hasStatus({ status }: JobSummary, name: string): boolean {
  if (name === "running") {
    return !isTerminal(status) && status !== "pending" && status !== "queued";
  }
  return status === (name === "failed" ? "error" : name);
}

function checkText(name: string, value: unknown): string {
  if (typeof value !== "string") {
    throw new TypeError(`feed: ${name} has to be a string`);
  }
  return value;
}
