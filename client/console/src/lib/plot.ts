/** The geometry of the plot of progress over time. Pure: from samples to what SVG draws. */

import type { JobState, StatusChange } from "@jobcast/client";
import { span } from "./durations";
import { percent, plural } from "./numbers";
import type { Sample, Series } from "./samples";

export interface Frame {
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
  /** From the run's beginning to the first sample that the page saw; null if nothing is missing. */
  readonly unseen: string | null;
}

export interface Phase {
  readonly status: StatusChange["status"];
  readonly x: number;
  readonly width: number;
}

const UNSEEN = 1500; // ms without a sample that are worth a dashed line

/** The time that a plot shows: from the job's first run to its end, or now. */
export function framed(
  job: JobState,
  series: Series,
  now: number,
  size: { readonly width: number; readonly height: number },
): Frame | null {
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

export function curvesOf(series: Series, history: readonly StatusChange[], frame: Frame): Curve[] {
  return runsIn(series).map((samples) => {
    const points = samples.map((sample) => pointOf(sample, frame));
    const [first, last] = [points[0], points.at(-1)];
    const line = pathOf(points);
    const base = round(frame.height);
    const run = samples[0]?.run ?? 0;
    return {
      run,
      line,
      tip: last ?? null,
      area: first && last ? `${line}L${last.x} ${base}L${first.x} ${base}Z` : "",
      unseen: samples[0] ? unseenOf(samples[0], history, frame) : null,
    };
  });
}

/** The states one after the other, as stretches of the time axis. */
export function phasesOf(history: readonly StatusChange[], frame: Frame): Phase[] {
  return history.flatMap((change, index) => {
    if (change.status === "complete" || change.status === "error") {
      return [];
    }
    const next = history[index + 1];
    const x = xOf(Date.parse(change.timestamp), frame);
    const end = next ? xOf(Date.parse(next.timestamp), frame) : frame.width;
    if (next && Date.parse(next.timestamp) <= frame.from) {
      return []; // it waited before its first run
    }
    return [{ status: change.status, x, width: round(Math.max(1, end - x)) }];
  });
}

/** Where runs after the first begin. */
export function boundariesOf(
  history: readonly StatusChange[],
  frame: Frame,
): { readonly run: number; readonly x: number }[] {
  const seen = new Set<number>();
  return history.flatMap(({ status, run, timestamp }) => {
    if (status !== "started" || run === null || seen.has(run)) {
      return [];
    }
    seen.add(run);
    return run > 1 ? [{ run, x: xOf(Date.parse(timestamp), frame) }] : [];
  });
}

/** The plot in words, for who doesn't see it and who doesn't want to. */
export function plotWords(series: Series, job: JobState): string {
  const runs = runsIn(series);
  const last = runs.at(-1);
  const [first, latest] = [last?.[0], last?.at(-1)];
  if (!first || !latest) {
    return "No percentage was seen of this job while the page was open.";
  }
  const way =
    first === latest
      ? `This page saw only ${percent(latest.percentage)}`
      : `From ${percent(first.percentage)} to ${percent(latest.percentage)} in ${span(latest.at - first.at)}`;
  const stages = stagesIn(last ?? []);
  const through = stages.length > 1 ? `, through the stages ${stages.join(", ")}` : "";
  const run = runs.length > 1 || (job.run ?? 1) > 1 ? ` in run ${latest.run}` : "";
  const number = runs.length > 1 ? `; ${plural(runs.length, "run")} seen` : "";
  return `${way}${run}${through}${number}.`;
}

export function xOf(at: number, { from, to, width }: Frame): number {
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

function unseenOf(first: Sample, history: readonly StatusChange[], frame: Frame): string | null {
  const start = history.findLast(
    ({ status, timestamp }) => status === "started" && Date.parse(timestamp) <= first.at,
  );
  const begin = start ? Date.parse(start.timestamp) : null;
  if (begin === null || first.at - begin < UNSEEN || first.percentage === 0) {
    return null;
  }
  const { x, y } = pointOf(first, frame);
  return `M${xOf(begin, frame)} ${frame.height}L${x} ${y}`;
}

export interface Point {
  readonly x: number;
  readonly y: number;
}

function pointOf({ at, percentage }: Sample, frame: Frame): Point {
  return { x: xOf(at, frame), y: round(frame.height * (1 - percentage / 100)) };
}

function pathOf(points: readonly Point[]): string {
  return points.map(({ x, y }, index) => `${index === 0 ? "M" : "L"}${x} ${y}`).join("");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
