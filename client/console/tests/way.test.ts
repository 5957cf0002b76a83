import type { JobEvent, JobState, StatusChange } from "@jobcast/client";
import { describe, expect, it } from "vitest";
import { isCut, runsOf, stepsOf } from "../src/lib/attempts";
import { boundariesOf, curvesOf, framed, phasesOf, plotWords } from "../src/lib/plot";
import { SERIES_LIMIT, type Series, withEvent } from "../src/lib/samples";
import { at, change, job, line, START } from "./jobs";

const way: StatusChange[] = [
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
    message: null,
  } as const;
  return stage === undefined ? { ...event, percentage } : { ...event, percentage, stage };
}

function seriesOf(...samples: readonly (readonly [number, number, number])[]): Series {
  return samples.reduce<Series>(
    (series, [seconds, percentage, run]) =>
      withEvent(series, progress(seconds, percentage), job({ run })),
    [],
  );
}

describe("the timeline", () => {
  it("says what happened, and how long each state was", () => {
    const steps = stepsOf(way);
    expect(steps.map(({ label, lasted }) => [label, lasted])).toEqual([
      ["Queued", 1000],
      ["Run 1 started", 2000],
      ["Attempt 2 due", 2000],
      ["Run 2 started", 4000],
      ["Failed", null],
    ]);
    expect(steps[2]?.detail).toBe("FeedBusy: not yet");
    expect(runsOf(job({ history: way }))).toBe(2);
  });

  it("knows whether its beginning is kept", () => {
    const cut = (
      history: StatusChange[],
      logs = [line(50)],
      what: Partial<JobState> = {},
    ): boolean => isCut(job({ history, logs, ...what }));
    expect(cut([change(1, { status: "queued" })])).toBe(false);
    expect(cut([change(2, { run: 1 })])).toBe(false);
    expect(cut([change(1, { status: "error" })], [])).toBe(false);
    expect(cut([], [], { status: "pending" })).toBe(false);
    expect(cut([change(9, { status: "error" })], [line(1)])).toBe(false);
    expect(cut([change(90, { status: "error" })])).toBe(true);
    expect(cut([change(90, { status: "queued" })])).toBe(true);
    expect(cut([change(40, { run: 2 })])).toBe(true);
    expect(cut([])).toBe(true);
    expect(cut([], [line(50)], { status: "pending" })).toBe(false);
  });

  it("tells a run that is heard of again from one that is new", () => {
    const stalled = [change(1, { run: 1 }), change(2, { status: "stalled" })];
    const labels = (last: StatusChange): (string | undefined)[] =>
      stepsOf([...stalled, last]).map(({ label }) => label);
    expect(labels(change(3, { run: 1 })).at(-1)).toBe("Run 1 is heard of again");
    expect(labels(change(3, { run: 2, attempt: 1 })).at(-1)).toBe("Run 2 started, attempt 1");
  });

  it("tells a job that is sent again from one that another task replaces", () => {
    const again = [...way, change(10, { status: "queued" })];
    expect(stepsOf(again).at(-1)?.label).toBe("Queued again");
    const replaced = [change(1, { run: 1 }), change(2, { status: "queued", task: "b" })];
    expect(stepsOf(replaced).at(-1)?.label).toBe("Another task takes its place");
  });
});

describe("samples of progress", () => {
  it("are taken of what has a percentage", () => {
    expect(withEvent([], progress(1, null), job())).toHaveLength(0);
    expect(seriesOf([1, 10, 1], [2, 20, 1]).map(({ percentage }) => percentage)).toEqual([10, 20]);
  });

  it("replace the one just before, and none that is later", () => {
    expect(seriesOf([1, 10, 1], [1.01, 11, 1]).map(({ percentage }) => percentage)).toEqual([11]);
    expect(seriesOf([2, 20, 1], [1, 10, 1]).map(({ percentage }) => percentage)).toEqual([20]);
  });

  it("are bounded, and keep their ends", () => {
    let series: Series = [];
    for (let number = 0; number < 5000; number += 1) {
      series = withEvent(series, progress(number, number / 50), job());
    }
    expect(series.length).toBeLessThanOrEqual(SERIES_LIMIT);
    expect([series[0]?.percentage, series.at(-1)?.percentage]).toEqual([0, 99.98]);
  });
});

describe("the plot", () => {
  const size = { width: 100, height: 50 };
  const history = way.slice(0, 4);
  const series = seriesOf([1, 0, 1], [2, 40, 1], [5, 0, 2], [10, 100, 2]);
  const state = job({ history, run: 2, updatedAt: at(10) });
  const frame = framed(state, series, START + 11_000, size);

  it("has a curve for each run, and where the later ones begin", () => {
    if (frame === null) {
      throw new Error("there is a first word");
    }
    const curves = curvesOf(series, history, frame);
    expect(curves.map(({ run, line }) => [run, line])).toEqual([
      [1, "M0 50L10 30"],
      [2, "M40 50L90 0"],
    ]);
    expect(curves[1]).toMatchObject({ area: "M40 50L90 0L90 50L40 50Z", tip: { x: 90, y: 0 } });
    expect(boundariesOf(history, frame)).toEqual([{ run: 2, x: 40 }]);
    expect(phasesOf(history, frame)).toEqual([
      { status: "started", x: 0, width: 20 },
      { status: "retrying", x: 20, width: 20 },
      { status: "started", x: 40, width: 60 },
    ]);
  });

  it("shows with another line what the page did not see", () => {
    const late = seriesOf([8, 70, 2]);
    const seen = framed(state, late, START + 11_000, size);
    expect(seen && curvesOf(late, history, seen)[0]?.unseen).toBe("M40 50L70 15");
  });

  it("ends with the job", () => {
    const ended = framed(job({ history: way, endedAt: at(9) }), [], START + 60_000, size);
    expect(ended && ended.to - ended.from).toBe(8000);
    const waiting = framed(job({ history: history.slice(0, 1) }), [], START + 4000, size);
    expect(waiting && phasesOf(history.slice(0, 1), waiting)).toEqual([
      { status: "queued", x: 0, width: 100 },
    ]);
    expect(framed(job(), [], START, size)).toBeNull();
  });

  it("is said in words too", () => {
    expect(plotWords(series, state)).toBe("From 0% to 100% in 5.0 s in run 2; 2 runs seen.");
    expect(plotWords([], state)).toMatch(/^No percentage was seen/);
    expect(plotWords(seriesOf([8, 70, 1]), job())).toBe("This page saw only 70%.");
    const staged = [progress(1, 0, "count"), progress(4, 60, "import")].reduce<Series>(
      (known, event) => withEvent(known, event, job()),
      [],
    );
    expect(plotWords(staged, job())).toBe(
      "From 0% to 60% in 3.0 s, through the stages count, import.",
    );
  });
});
