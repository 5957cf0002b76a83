import type { Gap, Level, LogLine } from "@jobcast/client";
import { describe, expect, it } from "vitest";
import {
  buildLogView,
  countUpTo,
  findRow,
  type LogFilter,
  type LogView,
  levelsIn,
  NO_FILTER,
} from "../src/lib/logView";
import { at, change, gap, line } from "./factories";

const marks = [change(1, { status: "queued" }), change(4, { run: 1 })];
const gaps: readonly Gap[] = [];
const seqs = (view: LogView): number[] => view.rows.map(({ seq }) => seq);
const filterOf = (hidden: Level[], needle = ""): LogFilter => ({ hidden: new Set(hidden), needle });

describe("the view of a log", () => {
  it("has the status changes between the lines", () => {
    const view = buildLogView({ logs: [line(2), line(5)], history: marks, gaps }, NO_FILTER, null);
    expect(view.rows.map(({ kind, seq }) => `${kind} ${seq}`)).toEqual([
      "change 1",
      "line 2",
      "change 4",
      "line 5",
    ]);
    expect([view.lines, view.counts.get("info")]).toEqual([2, 2]);
  });

  it("has gaps where lines are missing, even if the view had the later lines before", () => {
    const logs = [line(2), line(5), line(900), line(901)];
    const before = buildLogView({ logs, history: marks, gaps }, NO_FILTER, null);
    const holes = buildLogView({ logs, history: marks, gaps: [gap(5, 900)] }, NO_FILTER, before);
    expect(holes.rows.map(({ kind }) => kind)).toEqual([
      "change",
      "line",
      "change",
      "line",
      "gap",
      "line",
      "line",
    ]);
    expect([holes.lines, findRow(holes.rows, 900)]).toEqual([4, 5]);
    const { source } = holes;
    const grown = buildLogView({ ...source, logs: [...logs, line(902)] }, NO_FILTER, holes);
    expect(grown.rows.filter(({ kind }) => kind === "gap")).toHaveLength(1);
  });

  it("has the time of the next event in a gap", () => {
    const before = buildLogView({ logs: [], history: [], gaps: [gap(0, 5)] }, NO_FILTER, null);
    expect(before.rows).toEqual([{ kind: "gap", seq: 4.5, end: null }]);
    const filter = filterOf(["info"]);
    for (const known of [before, buildLogView(before.source, filter, null)]) {
      const grown = buildLogView({ ...before.source, logs: [line(5)] }, known.filter, known);
      expect(grown.rows[0]).toEqual({ kind: "gap", seq: 4.5, end: at(5) });
    }
  });

  it("has a gap after the status changes that are inside it", () => {
    const source = { logs: [line(9)], history: marks, gaps: [gap(0, 9)] };
    expect(buildLogView(source, NO_FILTER, null).rows.map(({ kind }) => kind)).toEqual([
      "change",
      "change",
      "gap",
      "line",
    ]);
  });

  it("has filters for the levels that occur, also for unknown ones", () => {
    const levels = ["warning", "notice", "constructor", "debug", "notice"];
    const logs = levels.map((level, index) => line(index + 1, { level }));
    const view = buildLogView({ logs, history: [], gaps }, filterOf(["notice"]), null);
    expect(levelsIn(view.counts)).toEqual(["debug", "warning", "constructor", "notice"]);
    expect([view.counts.get("notice"), seqs(view)]).toEqual([2, [1, 3, 4]]);
    const kept = buildLogView({ ...view.source, logs: logs.slice(3) }, view.filter, view);
    expect(levelsIn(kept.counts)).toEqual(["debug", "notice"]);
  });

  it("hides and counts levels, and finds matches", () => {
    const logs = [line(1, { level: "debug" }), line(2, { message: "a Bad line" }), line(3)];
    const view = buildLogView({ logs, history: [], gaps }, filterOf(["debug"], "bad"), null);
    expect([seqs(view), view.hits, view.counts.get("debug")]).toEqual([[2, 3], [2], 1]);
  });

  it("is the same whether built at once or step by step", () => {
    const logs: LogLine[] = Array.from({ length: 50 }, (_, index) =>
      line(index * 2 + 2, { level: index % 3 ? "info" : "warning" }),
    );
    const history = [change(1), change(51), change(99, { status: "complete" })];
    const filter = filterOf(["warning"], "4");
    let grown: LogView | null = null;
    for (let number = 0; number <= logs.length; number += 7) {
      const known = logs.slice(0, number);
      const seen = history.filter(({ seq }) => seq <= (known.at(-1)?.seq ?? 0));
      grown = buildLogView({ logs: known, history: seen, gaps }, filter, grown);
    }
    grown = buildLogView({ logs, history, gaps }, filter, grown);
    const whole = buildLogView({ logs, history, gaps }, filter, null);
    expect([grown.rows, grown.hits, grown.counts]).toEqual([whole.rows, whole.hits, whole.counts]);
  });

  it("is the same whether built at once or step by step while old lines are dropped", () => {
    const logs: LogLine[] = Array.from({ length: 100 }, (_, index) =>
      line(index * 2 + 2, { level: index % 3 ? "info" : "warning" }),
    );
    const history = [change(1), change(21), change(77), change(151, { status: "retrying" })];
    const holes = [[], [gap(30, 32)], [gap(30, 32), gap(90, 92)]];
    for (const filter of [NO_FILTER, filterOf(["warning"], "4"), filterOf(["info", "warning"])]) {
      let grown: LogView | null = null;
      for (let number = 0; number <= logs.length; number += 7) {
        const known = logs.slice(Math.max(0, number - 20), number);
        const last = known.at(-1)?.seq ?? 0;
        const seen = history.filter(({ seq }) => seq <= last);
        const found = holes[last < 30 ? 0 : last < 90 ? 1 : 2] ?? [];
        const source = { logs: known, history: seen, gaps: found };
        grown = buildLogView(source, filter, grown);
        const whole = buildLogView(source, filter, null);
        expect([grown.rows, grown.hits, grown.counts, grown.lines]).toEqual([
          whole.rows,
          whole.hits,
          whole.counts,
          whole.lines,
        ]);
      }
    }
  });

  it("loses only the dropped lines", () => {
    const logs = [line(2), line(5), line(6), line(7)];
    const history = [change(1), change(4)];
    const before = buildLogView({ logs, history, gaps: [gap(5, 6)] }, filterOf([], "line"), null);
    const kept = [...logs.slice(2), line(8)];
    const after = buildLogView({ ...before.source, logs: kept }, before.filter, before);
    expect(after.rows.map(({ kind, seq }) => `${kind} ${seq}`)).toEqual([
      "change 1",
      "change 4",
      "gap 5.5",
      "line 6",
      "line 7",
      "line 8",
    ]);
    expect(after.rows.slice(0, -1).every((row) => before.rows.includes(row))).toBe(true);
    expect([after.hits, after.lines, after.counts.get("info")]).toEqual([[6, 7, 8], 3, 3]);
  });

  it("is rebuilt for another record, for dropped changes and for another filter", () => {
    const first = buildLogView({ logs: [line(1), line(2)], history: [], gaps }, NO_FILTER, null);
    const other = buildLogView(
      { logs: [line(1), line(2), line(3)], history: [], gaps },
      NO_FILTER,
      first,
    );
    expect(seqs(other)).toEqual([1, 2, 3]);
    const all = buildLogView({ logs: [line(8), line(9)], history: [], gaps }, NO_FILTER, other);
    expect([seqs(all), all.counts.get("info")]).toEqual([[8, 9], 2]);
    const nothing = buildLogView({ logs: [], history: [], gaps }, NO_FILTER, all);
    expect([seqs(nothing), nothing.counts.size]).toEqual([[], 0]);
    const none = buildLogView(all.source, filterOf(["info"]), all);
    expect([seqs(none), none.counts.get("info")]).toEqual([[], 2]);
    const marked = buildLogView({ ...all.source, history: marks }, NO_FILTER, null);
    const unmarked = buildLogView({ ...all.source, history: marks.slice(1) }, NO_FILTER, marked);
    expect(seqs(unmarked)).toEqual([4, 8, 9]);
  });

  it("finds the index of a line", () => {
    const { rows } = buildLogView(
      { logs: [line(2), line(5), line(9)], history: [], gaps },
      NO_FILTER,
      null,
    );
    expect([2, 5, 9, 4, 10].map((seq) => findRow(rows, seq))).toEqual([0, 1, 2, -1, -1]);
    expect([1, 2, 4, 5, 10].map((seq) => countUpTo(rows, seq))).toEqual([0, 1, 1, 2, 3]);
  });

  it("keeps its rows when a line is added", () => {
    const before = buildLogView({ logs: [line(1)], history: marks, gaps }, NO_FILTER, null);
    const logs = [...before.source.logs, line(5)];
    const after = buildLogView({ logs, history: marks, gaps }, NO_FILTER, before);
    expect(
      after.rows.slice(0, before.rows.length).every((row, index) => row === before.rows[index]),
    ).toBe(true);
  });
});
