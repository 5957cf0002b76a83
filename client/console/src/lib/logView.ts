/**
 * What the log shows: lines of the chosen levels, with the job's changes of state between them, and
 * where something may be missing.
 * It goes on from the view before, so that a line that is added costs a line's work, not the log's.
 */

import type { Level, LogLine, StatusChange } from "@jobcast/client";
import { labelOf } from "./attempts";
import { matches } from "./search";

export type LogRow =
  | { readonly kind: "line"; readonly seq: number; readonly line: LogLine }
  | {
      readonly kind: "mark";
      readonly seq: number;
      readonly change: StatusChange;
      readonly label: string;
    }
  | { readonly kind: "gap"; readonly seq: number };

export interface LogFilter {
  readonly hidden: ReadonlySet<Level>;
  readonly needle: string;
}

export interface LogView {
  readonly filter: LogFilter;
  readonly rows: readonly LogRow[];
  /** The rows, by their place in `rows`, that the search finds. */
  readonly hits: readonly number[];
  readonly counts: Readonly<Record<Level, number>>;
  /** How many lines `rows` has, without the marks. */
  readonly lines: number;
  readonly source: Source;
}

interface Source {
  readonly logs: readonly LogLine[];
  readonly history: readonly StatusChange[];
  readonly gaps: readonly number[];
}

export const NO_FILTER: LogFilter = { hidden: new Set(), needle: "" };

const ZERO: LogView["counts"] = { debug: 0, info: 0, warning: 0, error: 0, critical: 0 };

export function viewOf(source: Source, filter: LogFilter, before: LogView | null): LogView {
  const known = before && before.filter === filter ? goOn(before, source) : null;
  const base = known ?? {
    rows: [],
    hits: [],
    counts: ZERO,
    lines: 0,
    logs: 0,
    history: 0,
    gaps: 0,
  };
  return extended(base, source, filter);
}

interface Base {
  readonly rows: readonly LogRow[];
  readonly hits: readonly number[];
  readonly counts: LogView["counts"];
  readonly lines: number;
  /** How many of the source's lines and changes are in it already. */
  readonly logs: number;
  readonly history: number;
  readonly gaps: number;
}

/** What of the view before is still true; null where it is simpler to begin anew. */
function goOn(view: LogView, { logs, history, gaps }: Source): Base | null {
  const { source } = view;
  const [firstLine, lastLine] = [source.logs[0], source.logs.at(-1)];
  const [firstChange, lastChange] = [source.history[0], source.history.at(-1)];
  const grew =
    gaps === source.gaps && // one may be found after what came behind it is shown
    logs[0] === firstLine &&
    history[0] === firstChange &&
    (lastLine === undefined || logs[source.logs.length - 1] === lastLine) &&
    (lastChange === undefined || history[source.history.length - 1] === lastChange);
  if (!grew) {
    return null;
  }
  const { rows, hits, counts, lines } = view;
  return {
    rows,
    hits,
    counts,
    lines,
    logs: source.logs.length,
    history: source.history.length,
    gaps: source.gaps.length,
  };
}

function extended(base: Base, source: Source, filter: LogFilter): LogView {
  const { logs, history, gaps } = source;
  if (base.logs === logs.length && base.history === history.length && base.logs > 0) {
    return { ...base, filter, source };
  }
  const rows = [...base.rows];
  const hits = [...base.hits];
  const counts = { ...base.counts };
  let [at, mark, hole, lines] = [base.logs, base.history, base.gaps, base.lines];
  for (;;) {
    const [line, change, gap] = [logs[at], history[mark], gaps[hole]];
    const next = Math.min(
      line?.seq ?? Number.POSITIVE_INFINITY,
      change?.seq ?? Number.POSITIVE_INFINITY,
    );
    if (gap !== undefined && gap < next) {
      rows.push({ kind: "gap", seq: gap + 0.5 }); // between what was seen and what came
      hole += 1;
    } else if (change && (!line || change.seq < line.seq)) {
      rows.push({ kind: "mark", seq: change.seq, change, label: labelOf(change, history, mark) });
      mark += 1;
    } else if (line) {
      counts[line.level] += 1;
      if (!filter.hidden.has(line.level)) {
        if (matches(line.message, filter.needle)) {
          hits.push(rows.length);
        }
        rows.push({ kind: "line", seq: line.seq, line });
        lines += 1;
      }
      at += 1;
    } else {
      return { filter, rows, hits, counts, lines, source };
    }
  }
}

/** Where a line or a mark is; -1 if it is not shown. Rows ascend by `seq`. */
export function placeOf(rows: readonly LogRow[], seq: number): number {
  let [low, high] = [0, rows.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    const found = rows[middle]?.seq ?? 0;
    if (found === seq) {
      return middle;
    }
    if (found < seq) {
      low = middle + 1;
    } else {
      high = middle - 1;
    }
  }
  return -1;
}

/** The lines as a text file has them. */
export function asText(lines: readonly LogLine[]): string {
  return lines
    .map(
      ({ timestamp, level, message }) =>
        `${timestamp} ${level.toUpperCase().padEnd(8)} ${message}\n`,
    )
    .join("");
}
