import { describe, expect, it } from "vitest";
import { asText, missingOf } from "../src/lib/logText";
import { NO_FILTER, viewOf } from "../src/lib/logView";
import { change, job, line } from "./jobs";

const marks = [change(1, { status: "queued" }), change(4, { run: 1 })];

describe("a log as text", () => {
  it("has a line for each, with time and level", () => {
    const logs = [line(2, { level: "warning", message: "no name" })];
    const { rows } = viewOf({ logs, history: marks, gaps: [] }, NO_FILTER, null);
    expect(asText(rows, [])).toBe("2026-01-15T09:30:02.000Z WARNING  no name\n");
  });

  it("has no escape sequence and no forged line", () => {
    const message = "\u001b]0;owned\u0007\u001b[31mred\n2026-01-15T09:30:03.000Z ERROR    forged";
    const { rows } = viewOf(
      { logs: [line(2, { message })], history: [], gaps: [] },
      NO_FILTER,
      null,
    );
    expect(asText(rows, [])).toBe(
      "2026-01-15T09:30:02.000Z INFO     red\n    2026-01-15T09:30:03.000Z ERROR    forged\n",
    );
  });

  it("says where lines are missing, as the page does", () => {
    const logs = [line(8, { message: "one" }), line(12, { message: "two" })];
    const known = job({ logs, history: [change(4, { run: 2 })], gaps: [8], droppedLogs: 1200 });
    expect(asText(viewOf(known, NO_FILTER, null).rows, missingOf(known)).split("\n")).toEqual([
      "-- Earlier lines are not kept any more. --",
      "-- 1,200 earlier lines are not shown any more. --",
      "2026-01-15T09:30:08.000Z INFO     one",
      "-- Some lines are missing here: they were not kept while the connection was away --",
      "2026-01-15T09:30:12.000Z INFO     two",
      "",
    ]);
    expect(missingOf(job({ history: marks, droppedLogs: 1 }))).toEqual([
      "1 earlier line is not shown any more.",
    ]);
  });
});
