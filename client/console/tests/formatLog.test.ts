import { describe, expect, it } from "vitest";
import { formatLog, missingLineNotes } from "../src/lib/formatLog";
import { buildLogView, NO_FILTER } from "../src/lib/logView";
import { change, gap, job, line } from "./factories";

const marks = [change(1, { status: "queued" }), change(4, { run: 1 })];

describe("a log as text", () => {
  it("has a row for each line, with time and level", () => {
    const logs = [line(2, { level: "warning", message: "no name" })];
    const { rows } = buildLogView({ logs, history: marks, gaps: [] }, NO_FILTER, null);
    expect(formatLog(rows, [])).toBe("2026-01-15T09:30:02.000Z WARNING  no name\n");
  });

  it("shows an unknown level as it is", () => {
    const logs = [line(2, { level: "notice" })];
    const { rows } = buildLogView({ logs, history: [], gaps: [] }, NO_FILTER, null);
    expect(formatLog(rows, [])).toBe("2026-01-15T09:30:02.000Z NOTICE   line 2\n");
  });

  it("has no escape sequences and no forged lines", () => {
    const message = "\u001b]0;owned\u0007\u001b[31mred\n2026-01-15T09:30:03.000Z ERROR    forged";
    const { rows } = buildLogView(
      { logs: [line(2, { message })], history: [], gaps: [] },
      NO_FILTER,
      null,
    );
    expect(formatLog(rows, [])).toBe(
      "2026-01-15T09:30:02.000Z INFO     red\n    2026-01-15T09:30:03.000Z ERROR    forged\n",
    );
  });

  it("has the page's notes where lines are missing", () => {
    const logs = [line(8, { message: "one" }), line(12, { message: "two" })];
    const known = job({ logs, gaps: [gap(0, 8), gap(8, 12), gap(12, 20)], droppedLogs: 1200 });
    expect(
      formatLog(buildLogView(known, NO_FILTER, null).rows, missingLineNotes(known)).split("\n"),
    ).toEqual([
      "-- 1,200 earlier lines are no longer shown. --",
      "-- Log lines before 2026-01-15T09:30:08.000Z are missing here: the server no longer stores them --",
      "2026-01-15T09:30:08.000Z INFO     one",
      "-- Log lines before 2026-01-15T09:30:12.000Z are missing here: the server no longer stores them --",
      "2026-01-15T09:30:12.000Z INFO     two",
      "-- Log lines are missing here: the server no longer stores them --",
      "",
    ]);
    expect(missingLineNotes(job())).toEqual([]);
    expect(missingLineNotes(job({ droppedLogs: 1 }))).toEqual([
      "1 earlier line is no longer shown.",
    ]);
  });
});
