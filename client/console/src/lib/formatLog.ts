/** The log as a text file, and the notes about missing lines. */

import type { JobState } from "@jobcast/client";
import { pluralize } from "./formatNumber";
import type { LogRow } from "./logView";
import { sanitizeText } from "./sanitizeText";

/**
 * Return the text of a gap.
 *
 * @param end the formatted time of the next row, or null for the last row.
 */
export function gapText(end: string | null): string {
  const lines = end === null ? "Log lines" : `Log lines before ${end}`;
  return `${lines} are missing here: the server no longer stores them`;
}

/** Return notes about lines that the page dropped at the beginning. */
export function missingLineNotes({
  droppedLogs,
}: Pick<JobState, "droppedLogs">): readonly string[] {
  const verb = droppedLogs === 1 ? "is" : "are";
  return droppedLogs > 0
    ? [`${pluralize(droppedLogs, "earlier line")} ${verb} no longer shown.`]
    : [];
}

/** Format the rows as text, with a note wherever lines are missing. */
export function formatLog(rows: readonly LogRow[], notes: readonly string[]): string {
  return [...notes.map(formatNote), ...rows.map(formatRow)].join("");
}

function formatRow(row: LogRow): string {
  switch (row.kind) {
    case "gap":
      return formatNote(gapText(row.end));
    case "change":
      return "";
    case "line": {
      const { timestamp, level, message } = row.line;
      return `${timestamp} ${sanitizeText(level).toUpperCase().padEnd(8)} ${sanitizeText(message)}\n`;
    }
  }
}

/** A note differs from log lines, which start with their time. */
function formatNote(text: string): string {
  return `-- ${text} --\n`;
}
