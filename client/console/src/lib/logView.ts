/**
 * The rows of the log: lines of the selected levels, with status changes and gaps between them. A view
 * is updated from the previous one, so that adding or dropping a line costs the work of one line.
 */

import type { Level, LogLine, StatusChange } from "@jobcast/client";
import { includesText } from "./search";
import { changeLabel } from "./timeline";

export type LogRow =
  | { readonly kind: "line"; readonly seq: number; readonly line: LogLine }
  | {
      readonly kind: "change";
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
  /** The `seq` values of the rows that match the search. */
  readonly hits: readonly number[];
  readonly counts: Readonly<Record<Level, number>>;
  /** The number of lines in `rows`, without status changes and gaps. */
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

const EMPTY: Base = { rows: [], hits: [], counts: ZERO, lines: 0, logs: 0, history: 0, gaps: 0 };

/** Return the view of a log, reusing the previous view where possible. */
export function buildLogView(source: Source, filter: LogFilter, before: LogView | null): LogView {
  const known = before && before.filter === filter ? reuse(before, source) : null;
  return extend(known ?? EMPTY, source, filter);
}

type Shown = Pick<LogView, "rows" | "hits" | "counts" | "lines">;

interface Base extends Shown {
  /** How many of the source's lines, changes and gaps the view contains. */
  readonly logs: number;
  readonly history: number;
  readonly gaps: number;
}

/** Return the part of a view that is still valid; null if a new view is simpler. */
function reuse(view: LogView, { logs, history, gaps }: Source): Base | null {
  const before = view.source;
  const removed = countRemoved(before.logs, logs);
  const onlyGrew =
    gaps === before.gaps && // a gap may be detected after later rows were added
    countRemoved(before.history, history) === 0; // the label of a change may depend on earlier changes
  if (removed === null || !onlyGrew) {
    return null;
  }
  return {
    ...dropLines(view, before.logs.slice(0, removed)),
    logs: before.logs.length - removed,
    history: before.history.length,
    gaps: before.gaps.length,
  };
}

interface Positioned {
  readonly seq: number;
}

/** Return how many items a list has lost at its beginning; null if it differs otherwise. */
function countRemoved(before: readonly Positioned[], now: readonly Positioned[]): number | null {
  const [first, last] = [now[0], before.at(-1)];
  if (last === undefined) {
    return 0;
  }
  const removed = first === undefined ? -1 : findRow(before, first.seq);
  const isSame = before[removed] === first && now[before.length - 1 - removed] === last;
  return removed !== -1 && isSame ? removed : null;
}

/** Return a view without its oldest lines. Changes and gaps between them stay. */
function dropLines(view: LogView, removed: readonly LogLine[]): Shown {
  const last = removed.at(-1);
  if (last === undefined) {
    return view;
  }
  const cut = countUpTo(view.rows, last.seq);
  const kept = view.rows.slice(0, cut).filter(({ kind }) => kind !== "line");
  const counts = { ...view.counts };
  for (const { level } of removed) {
    counts[level] -= 1;
  }
  return {
    rows: kept.concat(view.rows.slice(cut)),
    hits: view.hits.filter((seq) => seq > last.seq),
    counts,
    lines: view.lines - (cut - kept.length),
  };
}

function extend(base: Base, source: Source, filter: LogFilter): LogView {
  const { logs, history, gaps } = source;
  if (base.logs === logs.length && base.history === history.length && base.logs > 0) {
    return { ...base, filter, source };
  }
  const rows = [...base.rows];
  const hits = [...base.hits];
  const counts = { ...base.counts };
  let [at, nextChange, nextGap, lines] = [base.logs, base.history, base.gaps, base.lines];
  for (;;) {
    const [line, change, gap] = [logs[at], history[nextChange], gaps[nextGap]];
    const next = Math.min(
      line?.seq ?? Number.POSITIVE_INFINITY,
      change?.seq ?? Number.POSITIVE_INFINITY,
    );
    if (gap !== undefined && gap < next) {
      rows.push({ kind: "gap", seq: gap + 0.5 }); // between the last seen event and the next one
      nextGap += 1;
    } else if (change && (!line || change.seq < line.seq)) {
      rows.push({
        kind: "change",
        seq: change.seq,
        change,
        label: changeLabel(change, history, nextChange),
      });
      nextChange += 1;
    } else if (line) {
      counts[line.level] += 1;
      if (!filter.hidden.has(line.level)) {
        if (includesText(line.message, filter.needle)) {
          hits.push(line.seq);
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

/** Return the index of the row with this `seq`, or -1. Rows ascend by `seq`. */
export function findRow(rows: readonly Positioned[], seq: number): number {
  const index = countUpTo(rows, seq) - 1;
  return rows[index]?.seq === seq ? index : -1;
}

/** Return the number of rows up to and including `seq`. */
export function countUpTo(rows: readonly Positioned[], seq: number): number {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((rows[middle]?.seq ?? 0) <= seq) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
