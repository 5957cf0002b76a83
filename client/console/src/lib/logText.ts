/** The log as a text file has it, and what is said of lines that are missing, there and on the page. */

import type { JobState } from "@jobcast/client";
import { isCut } from "./attempts";
import { cleanText } from "./cleanText";
import type { LogRow } from "./logView";
import { plural } from "./numbers";

export const GAP = "Some lines are missing here: they were not kept while the connection was away";

/** What is missing at the beginning, a sentence each. */
export function missingOf(job: Cut): readonly string[] {
  const missing = isCut(job) ? ["Earlier lines are not kept any more."] : [];
  if (job.droppedLogs > 0) {
    const are = job.droppedLogs === 1 ? "is" : "are";
    missing.push(`${plural(job.droppedLogs, "earlier line")} ${are} not shown any more.`);
  }
  return missing;
}

type Cut = Pick<JobState, "history" | "logs" | "status" | "droppedLogs">;

/** The lines of the rows, and a remark where some are missing. */
export function asText(rows: readonly LogRow[], missing: readonly string[]): string {
  return [...missing.map(remark), ...rows.map(textOf)].join("");
}

function textOf(row: LogRow): string {
  switch (row.kind) {
    case "gap":
      return remark(GAP);
    case "mark":
      return "";
    case "line": {
      const { timestamp, level, message } = row.line;
      return `${timestamp} ${cleanText(level).toUpperCase().padEnd(8)} ${cleanText(message)}\n`;
    }
  }
}

/** Every line begins with its time: this is none. */
function remark(words: string): string {
  return `-- ${words} --\n`;
}
