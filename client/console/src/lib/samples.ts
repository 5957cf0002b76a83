/** The progress of jobs over time, as far as this page saw it. */

import type { JobEvent, JobState } from "@jobcast/client";

export interface Sample {
  readonly at: number; // ms
  readonly percentage: number;
  readonly run: number;
  readonly stage: string | null;
}

export type Series = readonly Sample[];

export const SERIES_LIMIT = 480; // samples; past them every second one goes
const CLOSEST = 50; // ms between two samples of one run and stage

/** The series with what an event says; the same object if it says nothing of progress. */
export function withEvent(series: Series, event: JobEvent, state: JobState): Series {
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
    last && sample.at - last.at < CLOSEST && last.run === sample.run && last.stage === sample.stage;
  const next = replaces ? [...series.slice(0, -1), sample] : [...series, sample];
  return next.length > SERIES_LIMIT ? thinned(next) : next;
}

/** Every second sample of each run's middle: its ends, and where stages change, stay. */
function thinned(series: Series): Series {
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
