/** The log as a text file, and the notes about missing lines. */

import type { JobState } from "@jobcast/client";
import { pluralize } from "./formatNumber";
import type { LogRow } from "./logView";
import { sanitizeText } from "./sanitizeText";
import { isTruncated } from "./timeline";

export const GAP_NOTE =
  "Lines are missing here: the server dropped them while the connection was lost";

/** Return notes about missing lines at the beginning. */
export function missingLineNotes(job: LogSource): readonly string[] {
  const notes = isTruncated(job) ? ["Earlier lines are no longer stored."] : [];
  if (job.droppedLogs > 0) {
    const verb = job.droppedLogs === 1 ? "is" : "are";
    notes.push(`${pluralize(job.droppedLogs, "earlier line")} ${verb} no longer shown.`);
  }
  return notes;
}

type LogSource = Pick<JobState, "history" | "logs" | "status" | "droppedLogs">;

/** Format the rows as text, with a note wherever lines are missing. */
export function formatLog(rows: readonly LogRow[], notes: readonly string[]): string {
  return [...notes.map(formatNote), ...rows.map(formatRow)].join("");
}

function formatRow(row: LogRow): string {
  switch (row.kind) {
    case "gap":
      return formatNote(GAP_NOTE);
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
