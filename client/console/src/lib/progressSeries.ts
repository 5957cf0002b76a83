/** The progress of a job over time, as far as the page received it. */

import type { JobEvent, JobGap, JobState } from "@jobcast/client";

export interface Sample {
  readonly at: number; // ms
  readonly percentage: number;
  readonly run: number;
  readonly stage: string | null;
}

export type Series = readonly Sample[];

export const SERIES_LIMIT = 480; // samples; beyond it, every second one is dropped
const MIN_INTERVAL = 50; // ms between two samples of one run and stage

/** Return the series with an event added; the same object if the event has no percentage. */
export function addSample(series: Series, event: JobEvent | JobGap, state: JobState): Series {
  if (event.type !== "job_progress" || event.percentage === null) {
    return series;
  }
  const sample = {
    at: Date.parse(event.timestamp),
    percentage: event.percentage,
    run: state.run ?? 0,
    stage: event.stage ?? null,
  };
  const last = series.at(-1);
  if (last && sample.at < last.at) {
    return series;
  }
  const replaces =
    last &&
    sample.at - last.at < MIN_INTERVAL &&
    last.run === sample.run &&
    last.stage === sample.stage;
  const next = replaces ? [...series.slice(0, -1), sample] : [...series, sample];
  return next.length > SERIES_LIMIT ? thin(next) : next;
}

/** Drop every second sample, except at the ends of runs and at stage changes. */
function thin(series: Series): Series {
  return series.filter((sample, index) => {
    const [before, after] = [series[index - 1], series[index + 1]];
    const isEdge =
      !before ||
      !after ||
      before.run !== sample.run ||
      after.run !== sample.run ||
      before.stage !== sample.stage;
    return isEdge || index % 2 === 0;
  });
}
