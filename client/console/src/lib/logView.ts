/**
 * What the log shows: lines of the chosen levels, with the job's changes of state between them, and
 * where something may be missing.
 * It goes on from the view before, so that a line that is added, or falls out at the beginning, costs
 * a line's work, not the log's.
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
  /** The rows, by their `seq`, that the search finds. */
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

const NOTHING: Base = { rows: [], hits: [], counts: ZERO, lines: 0, logs: 0, history: 0, gaps: 0 };

export function viewOf(source: Source, filter: LogFilter, before: LogView | null): LogView {
  const known = before && before.filter === filter ? goOn(before, source) : null;
  return extended(known ?? NOTHING, source, filter);
}

type Shown = Pick<LogView, "rows" | "hits" | "counts" | "lines">;

interface Base extends Shown {
  /** How many of the source's lines, changes and gaps are in it already. */
  readonly logs: number;
  readonly history: number;
  readonly gaps: number;
}

/** What of the view before is still true; null where it is simpler to begin anew. */
function goOn(view: LogView, { logs, history, gaps }: Source): Base | null {
  const before = view.source;
  const gone = goneOf(before.logs, logs);
  const grew =
    gaps === before.gaps && // one may be found after what came behind it is shown
    goneOf(before.history, history) === 0; // the label of a change may hang on those before it
  if (gone === null || !grew) {
    return null;
  }
  return {
    ...without(view, before.logs.slice(0, gone)),
    logs: before.logs.length - gone,
    history: before.history.length,
    gaps: before.gaps.length,
  };
}

interface Placed {
  readonly seq: number;
}

/** How many items a list has lost at its beginning; null if it is not the same list otherwise. */
function goneOf(before: readonly Placed[], now: readonly Placed[]): number | null {
  const [first, last] = [now[0], before.at(-1)];
  if (last === undefined) {
    return 0;
  }
  const gone = first === undefined ? -1 : placeOf(before, first.seq);
  const isSame = before[gone] === first && now[before.length - 1 - gone] === last;
  return gone !== -1 && isSame ? gone : null;
}

/** The view when its oldest lines are gone. The changes and gaps that were between them stay. */
function without(view: LogView, gone: readonly LogLine[]): Shown {
  const last = gone.at(-1);
  if (last === undefined) {
    return view;
  }
  const cut = countUpTo(view.rows, last.seq);
  const stay = view.rows.slice(0, cut).filter(({ kind }) => kind !== "line");
  const counts = { ...view.counts };
  for (const { level } of gone) {
    counts[level] -= 1;
  }
  return {
    rows: stay.concat(view.rows.slice(cut)),
    hits: view.hits.filter((seq) => seq > last.seq),
    counts,
    lines: view.lines - (cut - stay.length),
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

/** Where a line or a mark is; -1 if it is not shown. Rows ascend by `seq`. */
export function placeOf(rows: readonly Placed[], seq: number): number {
  const place = countUpTo(rows, seq) - 1;
  return rows[place]?.seq === seq ? place : -1;
}

/** How many rows come no later than `seq`. */
export function countUpTo(rows: readonly Placed[], seq: number): number {
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
