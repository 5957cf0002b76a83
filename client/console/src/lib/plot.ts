/** The geometry of the progress plot: pure functions from samples to SVG coordinates. */

import { isTerminal, type JobState, type StatusChange } from "@jobcast/client";
import { formatDuration } from "./formatDuration";
import { formatPercent, pluralize } from "./formatNumber";
import type { Sample, Series } from "./progressSeries";

export interface PlotFrame {
  readonly from: number; // ms
  readonly to: number;
  readonly width: number; // px
  readonly height: number;
}

export interface Curve {
  readonly run: number;
  readonly line: string; // SVG path data
  readonly area: string;
  /** The latest sample. */
  readonly tip: Point | null;
  /** Path from the start of the run to the first sample, if the page missed that part; else null. */
  readonly unobserved: string | null;
}

export interface StatusSpan {
  readonly status: StatusChange["status"];
  readonly x: number;
  readonly width: number;
}

const MIN_UNOBSERVED = 1500; // ms without a sample, from which a dashed line is drawn

/** Return the time range of the plot: from the job's first run to its end, or to now. */
export function plotFrame(
  job: JobState,
  series: Series,
  now: number,
  size: { readonly width: number; readonly height: number },
): PlotFrame | null {
  const first = job.history.find(({ status }) => status === "started") ?? job.history[0];
  const from = Math.min(
    first ? Date.parse(first.timestamp) : Number.POSITIVE_INFINITY,
    series[0]?.at ?? Number.POSITIVE_INFINITY,
  );
  if (!Number.isFinite(from)) {
    return null;
  }
  const end = job.endedAt === null ? now : Date.parse(job.endedAt);
  return { from, to: Math.max(end, series.at(-1)?.at ?? 0, from + 500), ...size };
}

export function progressCurves(
  series: Series,
  history: readonly StatusChange[],
  frame: PlotFrame,
): Curve[] {
  return runsIn(series).map((samples) => {
    const points = samples.map((sample) => toPoint(sample, frame));
    const [first, last] = [points[0], points.at(-1)];
    const line = toPath(points);
    const base = round(frame.height);
    const run = samples[0]?.run ?? 0;
    return {
      run,
      line,
      tip: last ?? null,
      area: first && last ? `${line}L${last.x} ${base}L${first.x} ${base}Z` : "",
      unobserved: samples[0] ? unobservedPath(samples[0], history, frame) : null,
    };
  });
}

/** Return the statuses as spans of the time axis. */
export function statusSpans(history: readonly StatusChange[], frame: PlotFrame): StatusSpan[] {
  return history.flatMap((change, index) => {
    if (isTerminal(change.status)) {
      return [];
    }
    const next = history[index + 1];
    const x = xAt(Date.parse(change.timestamp), frame);
    const end = next ? xAt(Date.parse(next.timestamp), frame) : frame.width;
    if (next && Date.parse(next.timestamp) <= frame.from) {
      return []; // the job waited for its first run
    }
    return [{ status: change.status, x, width: round(Math.max(1, end - x)) }];
  });
}

/** Return the start positions of all runs except the first. */
export function runBoundaries(
  history: readonly StatusChange[],
  frame: PlotFrame,
): { readonly run: number; readonly x: number }[] {
  const seen = new Set<number>();
  return history.flatMap(({ status, run, timestamp }) => {
    if (status !== "started" || run === null || seen.has(run)) {
      return [];
    }
    seen.add(run);
    return run > 1 ? [{ run, x: xAt(Date.parse(timestamp), frame) }] : [];
  });
}

/** Describe the plot in words. */
export function plotDescription(series: Series, job: JobState): string {
  const runs = runsIn(series);
  const last = runs.at(-1);
  const [first, latest] = [last?.[0], last?.at(-1)];
  if (!first || !latest) {
    return "This page has received no percentage of this job.";
  }
  const range =
    first === latest
      ? `This page has received only ${formatPercent(latest.percentage)}`
      : `From ${formatPercent(first.percentage)} to ${formatPercent(latest.percentage)} in ${formatDuration(latest.at - first.at)}`;
  const stages = stagesIn(last ?? []);
  const through = stages.length > 1 ? `, through the stages ${stages.join(", ")}` : "";
  const run = runs.length > 1 || (job.run ?? 1) > 1 ? ` in run ${latest.run}` : "";
  const number = runs.length > 1 ? `; ${pluralize(runs.length, "run")} recorded` : "";
  return `${range}${run}${through}${number}.`;
}

export function xAt(at: number, { from, to, width }: PlotFrame): number {
  return round(Math.min(width, Math.max(0, ((at - from) / (to - from)) * width)));
}

export function stagesIn(samples: readonly Sample[]): string[] {
  return [...new Set(samples.map(({ stage }) => stage).filter((stage) => stage !== null))];
}

function runsIn(series: Series): Sample[][] {
  const runs: Sample[][] = [];
  for (const sample of series) {
    const last = runs.at(-1);
    if (last && last[0]?.run === sample.run) {
      last.push(sample);
    } else {
      runs.push([sample]);
    }
  }
  return runs;
}

function unobservedPath(
  first: Sample,
  history: readonly StatusChange[],
  frame: PlotFrame,
): string | null {
  const start = history.findLast(
    ({ status, timestamp }) => status === "started" && Date.parse(timestamp) <= first.at,
  );
  const begin = start ? Date.parse(start.timestamp) : null;
  if (begin === null || first.at - begin < MIN_UNOBSERVED || first.percentage === 0) {
    return null;
  }
  const { x, y } = toPoint(first, frame);
  return `M${xAt(begin, frame)} ${frame.height}L${x} ${y}`;
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

function toPoint({ at, percentage }: Sample, frame: PlotFrame): Point {
  return { x: xAt(at, frame), y: round(frame.height * (1 - percentage / 100)) };
}

function toPath(points: readonly Point[]): string {
  return points.map(({ x, y }, index) => `${index === 0 ? "M" : "L"}${x} ${y}`).join("");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
