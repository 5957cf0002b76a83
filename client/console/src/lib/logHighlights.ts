/** The warnings and errors of a log. */

import type { JobState, LogLine } from "@jobcast/client";
import { pluralize } from "./formatNumber";

export interface LogHighlights {
  readonly title: string;
  readonly lines: readonly LogLine[];
}

const HIGHLIGHT_COUNT = 3;

/** Return the last warnings and errors, or the last lines of a failed job that has none. */
export function logHighlights({
  logs,
  status,
}: Pick<JobState, "logs" | "status">): LogHighlights | null {
  const issues = logs.filter(isIssue);
  if (issues.length > 0) {
    const which = issues.length > HIGHLIGHT_COUNT ? `, the last ${HIGHLIGHT_COUNT}` : "";
    return { title: `${describeIssues(issues)}${which}`, lines: issues.slice(-HIGHLIGHT_COUNT) };
  }
  return status === "error" && logs.length > 0
    ? { title: "Last log lines", lines: logs.slice(-HIGHLIGHT_COUNT) }
    : null;
}

/** Return `6 warnings` or `1 error and 2 warnings`; null if there are none. */
export function issueCount({ logs }: JobState): string | null {
  const issues = logs.filter(isIssue);
  return issues.length === 0 ? null : describeIssues(issues);
}

function describeIssues(issues: readonly LogLine[]): string {
  const warnings = issues.filter(({ level }) => level === "warning").length;
  const errors = issues.length - warnings;
  return [
    errors > 0 ? pluralize(errors, "error") : null,
    warnings > 0 ? pluralize(warnings, "warning") : null,
  ]
    .filter((part) => part !== null)
    .join(" and ");
}

function isIssue({ level }: LogLine): boolean {
  return level === "warning" || level === "error" || level === "critical";
}
