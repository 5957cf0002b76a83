/** The values that jobs can be filtered by. */

import type { JobSummary } from "@jobcast/client";

export interface Facets {
  readonly tasks: readonly string[];
  readonly tags: readonly string[];
  readonly owners: readonly string[];
}

const MAX_VALUES = 500; // of a facet; a longer list of suggestions is of no use

/** Return the values of jobs, the most frequent first. */
export function facetsOf(jobs: readonly JobSummary[]): Facets {
  return {
    tasks: frequent(jobs, ({ task }) => (task === null ? [] : [task])),
    tags: frequent(jobs, ({ tags }) => tags),
    owners: frequent(jobs, ({ owner }) => (owner === null ? [] : [owner])),
  };
}

function frequent(
  jobs: readonly JobSummary[],
  valuesOf: (job: JobSummary) => readonly string[],
): readonly string[] {
  const counts = new Map<string, number>();
  for (const job of jobs) {
    for (const value of valuesOf(job)) {
      counts.set(value, (counts.get(value) ?? 0) + 1);
    }
  }
  return [...counts]
    .sort(([one, count], [other, otherCount]) => otherCount - count || (one < other ? -1 : 1))
    .slice(0, MAX_VALUES)
    .map(([value]) => value);
}
