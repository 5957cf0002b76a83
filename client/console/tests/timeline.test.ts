import type { Gap, JobEvent, StatusChange } from "@jobcast/client";
import { describe, expect, it } from "vitest";
import {
  plotDescription,
  plotFrame,
  progressCurves,
  runBoundaries,
  statusSpans,
} from "../src/lib/plot";
import { addSample, SERIES_LIMIT, type Series } from "../src/lib/progressSeries";
import { countRuns, isTruncated, timelineSteps } from "../src/lib/timeline";
import { at, change, gap, job, START } from "./factories";

const changes: StatusChange[] = [
  change(0, { status: "queued" }),
  change(1, { run: 1, attempt: 1 }),
  change(3, { status: "retrying", attempt: 2, error: "FeedBusy", message: "not yet" }),
  change(5, { run: 2, attempt: 2 }),
  change(9, { status: "error", reason: "failure", error: "E", message: "m" }),
];

function progress(seconds: number, percentage: number | null, stage?: string): JobEvent {
  const event = {
    type: "job_progress",
    job_id: "a",
    seq: 1,
    timestamp: at(seconds),
  } as const;
  return stage === undefined ? { ...event, percentage } : { ...event, percentage, stage };
}

function seriesOf(...samples: readonly (readonly [number, number, number])[]): Series {
  return samples.reduce<Series>(
    (series, [seconds, percentage, run]) =>
      addSample(series, progress(seconds, percentage), job({ run })),
    [],
  );
}

describe("the timeline", () => {
  it("has a label and a duration for each status", () => {
    const steps = timelineSteps(changes);
    expect(steps.map(({ label, duration }) => [label, duration])).toEqual([
      ["Queued", 1000],
      ["Run 1 started", 2000],
      ["Attempt 2 scheduled", 2000],
      ["Run 2 started", 4000],
      ["Failed", null],
    ]);
    expect(steps[2]?.detail).toBe("FeedBusy: not yet");
    expect(countRuns(job({ history: changes }))).toBe(2);
  });

  it("detects a truncated beginning", () => {
    const cut = (first: StatusChange[], ...gaps: Gap[]): boolean =>
      isTruncated(job({ history: first, gaps }));
    expect(cut([change(90, { status: "error" })])).toBe(false);
    expect(cut([change(90, { status: "error" })], gap(0, 50))).toBe(true);
    expect(cut([change(40, { run: 2 })], gap(0, 50))).toBe(true);
    expect(cut([change(40, { run: 2 })], gap(60, 70))).toBe(false);
    expect(cut([change(1, { status: "queued" })], gap(0, 50))).toBe(false);
    expect(cut([change(2, { run: 1 })], gap(0, 50))).toBe(false);
    expect(cut([], gap(0, 50))).toBe(false);
  });

  it("shows an unknown status as it is", () => {
    const steps = timelineSteps([
      change(1, { run: 1 }),
      change(3, { status: "waiting_for_parent", message: "the parent still runs" }),
      change(5, { status: "error", reason: "out_of_quota" }),
    ]);
    expect(steps.map(({ label, detail, duration }) => [label, detail, duration])).toEqual([
      ["Run 1 started", null, 2000],
      ["Waiting for parent", "the parent still runs", 2000],
      ["Out of quota", null, null],
    ]);
  });

  it("shows no failure for a revoked job", () => {
    const revoked = change(3, { status: "cancelled", reason: "revoked" });
    const step = timelineSteps([change(1, { run: 1 }), revoked]).at(-1);
    expect([step?.label, step?.status]).toEqual(["Revoked", "cancelled"]);
  });

  it("distinguishes a resumed run from a new one", () => {
    const stalled = [change(1, { run: 1 }), change(2, { status: "stalled" })];
    const labels = (last: StatusChange): (string | undefined)[] =>
      timelineSteps([...stalled, last]).map(({ label }) => label);
    expect(labels(change(3, { run: 1 })).at(-1)).toBe("Run 1 resumed");
    expect(labels(change(3, { run: 2, attempt: 1 })).at(-1)).toBe("Run 2 started, attempt 1");
  });

  it("distinguishes a job that is sent again from one that another task replaces", () => {
    const again = [...changes, change(10, { status: "queued" })];
    expect(timelineSteps(again).at(-1)?.label).toBe("Queued again");
    const replaced = [change(1, { run: 1 }), change(2, { status: "queued", task: "b" })];
    expect(timelineSteps(replaced).at(-1)?.label).toBe("Replaced by another task");
  });
});

describe("progress samples", () => {
  it("are taken from events with a percentage", () => {
    expect(addSample([], progress(1, null), job())).toHaveLength(0);
    expect(seriesOf([1, 10, 1], [2, 20, 1]).map(({ percentage }) => percentage)).toEqual([10, 20]);
  });

  it("replace a sample of the same moment, but no later one", () => {
    expect(seriesOf([1, 10, 1], [1.01, 11, 1]).map(({ percentage }) => percentage)).toEqual([11]);
    expect(seriesOf([2, 20, 1], [1, 10, 1]).map(({ percentage }) => percentage)).toEqual([20]);
  });

  it("are bounded and keep the first and the last one", () => {
    let series: Series = [];
    for (let number = 0; number < 5000; number += 1) {
      series = addSample(series, progress(number, number / 50), job());
    }
    expect(series.length).toBeLessThanOrEqual(SERIES_LIMIT);
    expect([series[0]?.percentage, series.at(-1)?.percentage]).toEqual([0, 99.98]);
  });
});

describe("the plot", () => {
  const size = { width: 100, height: 50 };
  const history = changes.slice(0, 4);
  const series = seriesOf([1, 0, 1], [2, 40, 1], [5, 0, 2], [10, 100, 2]);
  const state = job({ history, run: 2, updatedAt: at(10) });
  const frame = plotFrame(state, series, START + 11_000, size);

  it("has a curve and a start position for each run", () => {
    if (frame === null) {
      throw new Error("the plot has no frame");
    }
    const curves = progressCurves(series, history, frame);
    expect(curves.map(({ run, line }) => [run, line])).toEqual([
      [1, "M0 50L10 30"],
      [2, "M40 50L90 0"],
    ]);
    expect(curves[1]).toMatchObject({ area: "M40 50L90 0L90 50L40 50Z", tip: { x: 90, y: 0 } });
    expect(runBoundaries(history, frame)).toEqual([{ run: 2, x: 40 }]);
    expect(statusSpans(history, frame)).toEqual([
      { status: "started", x: 0, width: 20 },
      { status: "retrying", x: 20, width: 20 },
      { status: "started", x: 40, width: 60 },
    ]);
  });

  it("has a separate path for the part that the page did not receive", () => {
    const late = seriesOf([8, 70, 2]);
    const seen = plotFrame(state, late, START + 11_000, size);
    expect(seen && progressCurves(late, history, seen)[0]?.unobserved).toBe("M40 50L70 15");
  });

  it("ends with the job", () => {
    const ended = plotFrame(job({ history: changes, endedAt: at(9) }), [], START + 60_000, size);
    expect(ended && ended.to - ended.from).toBe(8000);
    const waiting = plotFrame(job({ history: history.slice(0, 1) }), [], START + 4000, size);
    expect(waiting && statusSpans(history.slice(0, 1), waiting)).toEqual([
      { status: "queued", x: 0, width: 100 },
    ]);
    expect(plotFrame(job(), [], START, size)).toBeNull();
  });

  it("has a description in words", () => {
    expect(plotDescription(series, state)).toBe(
      "From 0% to 100% in 5.0 s in run 2; 2 runs recorded.",
    );
    expect(plotDescription([], state)).toMatch(/^This page has received no percentage/);
    expect(plotDescription(seriesOf([8, 70, 1]), job())).toBe("This page has received only 70%.");
    const staged = [progress(1, 0, "count"), progress(4, 60, "import")].reduce<Series>(
      (known, event) => addSample(known, event, job()),
      [],
    );
    expect(plotDescription(staged, job())).toBe(
      "From 0% to 60% in 3.0 s, through the stages count, import.",
    );
  });
});
