import type { JobState } from "@jobcast/client";
import { Fragment, type ReactElement, useMemo } from "react";
import {
  elapsed,
  formatAge,
  formatClock,
  formatDuration,
  formatEstimate,
} from "../lib/formatDuration";
import { formatRate } from "../lib/formatNumber";
import { formatDateTime } from "../lib/formatTime";
import { remainingSeconds } from "../lib/headline";
import { issueCount } from "../lib/logHighlights";
import { useNow } from "../lib/useNow";

interface Props {
  readonly state: JobState;
  readonly sentAt: string | null;
}

/** The key figures of a row: elapsed time, remaining time, rate. */
export function RowStats({ state, sentAt }: Props): ReactElement {
  const now = useNow();
  // Counting reads the whole log, so it does not happen each second.
  const issues = useMemo(() => (state.endedAt === null ? null : issueCount(state)), [state]);
  const stats = rowStats(state, now, issues);
  const at = state.endedAt ?? sentAt;
  if (state.endedAt !== null || (stats.length === 0 && sentAt !== null)) {
    stats.push(formatAge(now - Date.parse(at ?? "")));
  }
  return (
    <p className="row-stats number" title={at === null ? undefined : formatDateTime(at)}>
      {stats.map((stat, index) => (
        <Fragment key={stat}>
          {index > 0 ? " · " : null}
          <span>{stat}</span>
        </Fragment>
      ))}
    </p>
  );
}

function rowStats(state: JobState, now: number, issues: string | null): string[] {
  if (state.joined === "refused") {
    return [];
  }
  const stats: (string | null)[] = [];
  if (state.endedAt !== null) {
    const length = elapsed(state.startedAt, state.endedAt);
    stats.push(length === null ? null : `took ${formatDuration(length)}`, issues);
  } else {
    const left = remainingSeconds(state, now);
    const since = state.startedAt ?? state.queuedAt;
    stats.push(
      since === null ? null : formatClock(now - Date.parse(since)),
      left === null ? null : `${formatEstimate(left)} left`,
      state.status === "started" && state.rate !== null ? formatRate(state.rate) : null,
    );
  }
  stats.push(state.attempt > 1 ? `attempt ${state.attempt}` : null);
  return stats.filter((stat) => stat !== null);
}
