/**
 * The rows of the log: lines of the selected levels, with status changes and gaps between them. A view
 * is updated from the previous one, so that adding or dropping a line costs the work of one line.
 */

import { type Gap, LEVELS, type Level, type LogLine, type StatusChange } from "@jobcast/client";
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
  | GapRow;

interface GapRow {
  readonly kind: "gap";
  readonly seq: number;
  /** The time of the next event; null if there is none. */
  readonly end: string | null;
}

export interface LogFilter {
  readonly hidden: ReadonlySet<Level>;
  readonly needle: string;
}

export interface LogView {
  readonly filter: LogFilter;
  readonly rows: readonly LogRow[];
  /** The `seq` values of the rows that match the search. */
  readonly hits: readonly number[];
  readonly counts: LevelCounts;
  /** The number of lines in `rows`, without status changes and gaps. */
  readonly lines: number;
  readonly source: Source;
}

/** The number of lines of each level. */
export type LevelCounts = ReadonlyMap<Level, number>;

interface Source {
  readonly logs: readonly LogLine[];
  readonly history: readonly StatusChange[];
  readonly gaps: readonly Gap[];
}

export const NO_FILTER: LogFilter = { hidden: new Set(), needle: "" };

const EMPTY: Base = {
  rows: [],
  hits: [],
  counts: new Map(),
  lines: 0,
  logs: 0,
  history: 0,
  gaps: 0,
};

/** Return the levels of the lines: the known ones by severity, then the others by name. */
export function levelsIn(counts: LevelCounts): readonly Level[] {
  const others = [...counts.keys()].filter((level) => !LEVELS.includes(level));
  return [...LEVELS.filter((level) => counts.has(level)), ...others.sort()];
}

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
function reuse(view: LogView, source: Source): Base | null {
  const { logs, history, gaps } = source;
  const before = view.source;
  const removed = countRemoved(before.logs, logs);
  const onlyGrew =
    gaps === before.gaps && // the latest gap may have been extended
    view.rows.at(-1)?.kind !== "gap" && // the next event completes the row
    countRemoved(before.history, history) === 0; // the label of a change may depend on earlier changes
  if (removed === null || !onlyGrew) {
    return null;
  }
  return {
    ...dropLines(view, before.logs.slice(0, removed), source),
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
function dropLines(view: LogView, removed: readonly LogLine[], source: Source): Shown {
  const last = removed.at(-1);
  if (last === undefined) {
    return view;
  }
  const cut = countUpTo(view.rows, last.seq);
  const kept = view.rows
    .slice(0, cut)
    .filter(({ kind }) => kind !== "line")
    .map((row) => (row.kind === "gap" ? withEnd(row, source) : row));
  const counts = new Map(view.counts);
  for (const { level } of removed) {
    count(counts, level, -1);
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
  const counts = new Map(base.counts);
  let [at, nextChange, nextGap, lines] = [base.logs, base.history, base.gaps, base.lines];
  for (;;) {
    const [line, change, gap] = [logs[at], history[nextChange], gaps[nextGap]];
    const isChange = change && (!line || change.seq < line.seq);
    const next = isChange ? change : line;
    if (gap && (!next || gap.before <= next.seq)) {
      rows.push(withEnd({ kind: "gap", seq: gap.before - 0.5, end: null }, source));
      nextGap += 1;
    } else if (isChange) {
      rows.push({
        kind: "change",
        seq: change.seq,
        change,
        label: changeLabel(change, history, nextChange),
      });
      nextChange += 1;
    } else if (line) {
      count(counts, line.level, 1);
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

/** Return the row of a gap with the time of the next event. */
function withEnd(row: GapRow, { logs, history }: Source): GapRow {
  const line = logs[countUpTo(logs, row.seq)];
  const change = history[countUpTo(history, row.seq)];
  const next = change && (!line || change.seq < line.seq) ? change : line;
  const end = next?.timestamp ?? null;
  return end === row.end ? row : { ...row, end };
}

/** Add to the number of lines of a level. */
function count(counts: Map<Level, number>, level: Level, by: number): void {
  const lines = (counts.get(level) ?? 0) + by;
  if (lines === 0) {
    counts.delete(level);
  } else {
    counts.set(level, lines);
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
