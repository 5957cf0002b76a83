/** What a job said last, and how much of it was a complaint. */

import type { JobState, LogLine } from "@jobcast/client";
import { plural } from "./numbers";

export interface LastWords {
  readonly title: string;
  readonly lines: readonly LogLine[];
}

const LINES = 3;

/** Its last warnings and errors; of a job that failed without any, its last lines. */
export function lastWordsOf({ logs, status }: Pick<JobState, "logs" | "status">): LastWords | null {
  const grave = logs.filter(isGrave);
  if (grave.length > 0) {
    const which = grave.length > LINES ? `, the last ${LINES}` : "";
    return { title: `${graveWords(grave)}${which}`, lines: grave.slice(-LINES) };
  }
  return status === "error" && logs.length > 0
    ? { title: "Its last log lines", lines: logs.slice(-LINES) }
    : null;
}

/** `6 warnings`, `1 error and 2 warnings`; null for none. */
export function complaintsOf({ logs }: JobState): string | null {
  const grave = logs.filter(isGrave);
  return grave.length === 0 ? null : graveWords(grave);
}

function graveWords(grave: readonly LogLine[]): string {
  const warnings = grave.filter(({ level }) => level === "warning").length;
  const errors = grave.length - warnings;
  return [
    errors > 0 ? plural(errors, "error") : null,
    warnings > 0 ? plural(warnings, "warning") : null,
  ]
    .filter((part) => part !== null)
    .join(" and ");
}

function isGrave({ level }: LogLine): boolean {
  return level === "warning" || level === "error" || level === "critical";
}
