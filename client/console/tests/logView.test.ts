import type { Level, LogLine } from "@jobcast/client";
import { describe, expect, it } from "vitest";
import {
  countUpTo,
  type LogFilter,
  type LogView,
  NO_FILTER,
  placeOf,
  viewOf,
} from "../src/lib/logView";
import { change, line } from "./jobs";

const marks = [change(1, { status: "queued" }), change(4, { run: 1 })];
const gaps: readonly number[] = [];
const seqs = (view: LogView): number[] => view.rows.map(({ seq }) => seq);
const filterOf = (hidden: Level[], needle = ""): LogFilter => ({ hidden: new Set(hidden), needle });

describe("the view of a log", () => {
  it("has the changes of state between the lines", () => {
    const view = viewOf({ logs: [line(2), line(5)], history: marks, gaps }, NO_FILTER, null);
    expect(view.rows.map(({ kind, seq }) => `${kind} ${seq}`)).toEqual([
      "mark 1",
      "line 2",
      "mark 4",
      "line 5",
    ]);
    expect([view.lines, view.counts.info]).toEqual([2, 2]);
  });

  it("says where lines are missing, also when that is known late", () => {
    const logs = [line(2), line(5), line(900), line(901)];
    const before = viewOf({ logs, history: marks, gaps }, NO_FILTER, null);
    const holes = viewOf({ logs, history: marks, gaps: [5] }, NO_FILTER, before);
    expect(holes.rows.map(({ kind }) => kind)).toEqual([
      "mark",
      "line",
      "mark",
      "line",
      "gap",
      "line",
      "line",
    ]);
    expect([holes.lines, placeOf(holes.rows, 900)]).toEqual([4, 5]);
    const { source } = holes;
    const grown = viewOf({ ...source, logs: [...logs, line(902)] }, NO_FILTER, holes);
    expect(grown.rows.filter(({ kind }) => kind === "gap")).toHaveLength(1);
    expect(viewOf({ logs: [], history: [], gaps: [5] }, NO_FILTER, null).rows).toHaveLength(1);
  });

  it("leaves out levels, counts them, and finds words", () => {
    const logs = [line(1, { level: "debug" }), line(2, { message: "a Bad line" }), line(3)];
    const view = viewOf({ logs, history: [], gaps }, filterOf(["debug"], "bad"), null);
    expect([seqs(view), view.hits, view.counts.debug]).toEqual([[2, 3], [2], 1]);
  });

  it("is the same, made at once or step by step", () => {
    const logs: LogLine[] = Array.from({ length: 50 }, (_, index) =>
      line(index * 2 + 2, { level: index % 3 ? "info" : "warning" }),
    );
    const history = [change(1), change(51), change(99, { status: "complete" })];
    const filter = filterOf(["warning"], "4");
    let grown: LogView | null = null;
    for (let number = 0; number <= logs.length; number += 7) {
      const known = logs.slice(0, number);
      const seen = history.filter(({ seq }) => seq <= (known.at(-1)?.seq ?? 0));
      grown = viewOf({ logs: known, history: seen, gaps }, filter, grown);
    }
    grown = viewOf({ logs, history, gaps }, filter, grown);
    const whole = viewOf({ logs, history, gaps }, filter, null);
    expect([grown.rows, grown.hits, grown.counts]).toEqual([whole.rows, whole.hits, whole.counts]);
  });

  it("is the same, made at once or step by step, also when the oldest lines fall out", () => {
    const logs: LogLine[] = Array.from({ length: 100 }, (_, index) =>
      line(index * 2 + 2, { level: index % 3 ? "info" : "warning" }),
    );
    const history = [change(1), change(21), change(77), change(151, { status: "retrying" })];
    const holes = [[], [30], [30, 90]];
    for (const filter of [NO_FILTER, filterOf(["warning"], "4"), filterOf(["info", "warning"])]) {
      let grown: LogView | null = null;
      for (let number = 0; number <= logs.length; number += 7) {
        const known = logs.slice(Math.max(0, number - 20), number);
        const last = known.at(-1)?.seq ?? 0;
        const seen = history.filter(({ seq }) => seq <= last);
        const found = holes[last < 30 ? 0 : last < 90 ? 1 : 2] ?? [];
        const source = { logs: known, history: seen, gaps: found };
        grown = viewOf(source, filter, grown);
        const whole = viewOf(source, filter, null);
        expect([grown.rows, grown.hits, grown.counts, grown.lines]).toEqual([
          whole.rows,
          whole.hits,
          whole.counts,
          whole.lines,
        ]);
      }
    }
  });

  it("loses what fell out, and no more", () => {
    const logs = [line(2), line(5), line(6), line(7)];
    const history = [change(1), change(4)];
    const before = viewOf({ logs, history, gaps: [5] }, filterOf([], "line"), null);
    const kept = [...logs.slice(2), line(8)];
    const after = viewOf({ ...before.source, logs: kept }, before.filter, before);
    expect(after.rows.map(({ kind, seq }) => `${kind} ${seq}`)).toEqual([
      "mark 1",
      "mark 4",
      "gap 5.5",
      "line 6",
      "line 7",
      "line 8",
    ]);
    expect(after.rows.slice(0, -1).every((row) => before.rows.includes(row))).toBe(true);
    expect([after.hits, after.lines, after.counts.info]).toEqual([[6, 7, 8], 3, 3]);
  });

  it("begins anew with another record, with changes that have gone, and with another filter", () => {
    const first = viewOf({ logs: [line(1), line(2)], history: [], gaps }, NO_FILTER, null);
    const other = viewOf(
      { logs: [line(1), line(2), line(3)], history: [], gaps },
      NO_FILTER,
      first,
    );
    expect(seqs(other)).toEqual([1, 2, 3]);
    const all = viewOf({ logs: [line(8), line(9)], history: [], gaps }, NO_FILTER, other);
    expect([seqs(all), all.counts.info]).toEqual([[8, 9], 2]);
    const nothing = viewOf({ logs: [], history: [], gaps }, NO_FILTER, all);
    expect([seqs(nothing), nothing.counts.info]).toEqual([[], 0]);
    const none = viewOf(all.source, filterOf(["info"]), all);
    expect([seqs(none), none.counts.info]).toEqual([[], 2]);
    const marked = viewOf({ ...all.source, history: marks }, NO_FILTER, null);
    const unmarked = viewOf({ ...all.source, history: marks.slice(1) }, NO_FILTER, marked);
    expect(seqs(unmarked)).toEqual([4, 8, 9]);
  });

  it("finds a line's place", () => {
    const { rows } = viewOf(
      { logs: [line(2), line(5), line(9)], history: [], gaps },
      NO_FILTER,
      null,
    );
    expect([2, 5, 9, 4, 10].map((seq) => placeOf(rows, seq))).toEqual([0, 1, 2, -1, -1]);
    expect([1, 2, 4, 5, 10].map((seq) => countUpTo(rows, seq))).toEqual([0, 1, 1, 2, 3]);
  });

  it("is not made anew for a line that is added", () => {
    const before = viewOf({ logs: [line(1)], history: marks, gaps }, NO_FILTER, null);
    const logs = [...before.source.logs, line(5)];
    const after = viewOf({ logs, history: marks, gaps }, NO_FILTER, before);
    expect(
      after.rows.slice(0, before.rows.length).every((row, index) => row === before.rows[index]),
    ).toBe(true);
  });
});
