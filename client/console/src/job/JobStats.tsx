import { isTerminal, type JobState } from "@jobcast/client";
import type { ReactElement, ReactNode } from "react";
import { formatEstimate } from "../lib/formatDuration";
import { formatCount, formatRate } from "../lib/formatNumber";
import { formatDateTime, formatDayAndTime } from "../lib/formatTime";
import { remainingSeconds } from "../lib/headline";
import { labelOf } from "../lib/openValue";
import { countRuns, isTruncated } from "../lib/timeline";
import { useNow } from "../lib/useNow";
import { Clock } from "../ui/Clock";

/** The key figures of a job. */
export function JobStats({ job }: { readonly job: JobState }): ReactElement {
  const now = useNow(!isTerminal(job.status));
  const isRunning = job.status === "started";
  const left = remainingSeconds(job, now);
  const start = job.startedAt ?? job.queuedAt;
  const since =
    isTerminal(job.status) || isRunning ? start : (job.history.at(-1)?.timestamp ?? start);
  const runs = countRuns(job);
  const first = job.history[0]?.timestamp ?? null;
  return (
    <dl className="stats">
      {since === null ? null : (
        <Stat name={elapsedLabel(job.status)}>
          <Clock from={since} to={job.endedAt} />
        </Stat>
      )}
      {runs > 1 && job.endedAt !== null && first !== null && !isTruncated(job) ? (
        <Stat name="All attempts took">
          <Clock from={first} to={job.endedAt} />
        </Stat>
      ) : null}
      {isRunning ? (
        <Stat name="Time left">
          {left === null ? <span className="faint">unknown</span> : formatEstimate(left)}
        </Stat>
      ) : null}
      {job.current === null ? null : (
        <Stat name="Items">
          {formatCount(job.current)}
          {job.total === null ? null : <span className="faint"> of {formatCount(job.total)}</span>}
        </Stat>
      )}
      {job.rate === null ? null : (
        <Stat name={isRunning ? "Rate" : "Last rate"}>{formatRate(job.rate)}</Stat>
      )}
      {job.stage === null ? null : <Stat name="Stage">{job.stage}</Stat>}
      {job.attempt > 1 || runs > 1 ? (
        <Stat name="Attempt">
          {job.attempt}
          {job.run === null || job.run === job.attempt ? null : (
            <span className="faint"> (run {job.run})</span>
          )}
        </Stat>
      ) : null}
      {start === null ? null : (
        <Stat name={job.startedAt === null ? "Sent" : "Started"}>
          <time dateTime={start} title={formatDateTime(start)}>
            {formatDayAndTime(start, now === 0 ? Date.now() : now)}
          </time>
        </Stat>
      )}
    </dl>
  );
}

/** Return the label of the elapsed time. */
function elapsedLabel(status: JobState["status"]): string {
  switch (status) {
    case "pending":
    case "queued":
    case "retrying":
      return "Waiting for";
    case "started":
      return "Running for";
    case "complete":
    case "error":
    case "cancelled":
      return "Took";
    default:
      return `${labelOf(status)} for`;
  }
}

function Stat({
  name,
  children,
}: {
  readonly name: string;
  readonly children: ReactNode;
}): ReactElement {
  return (
    <div>
      <dt>{name}</dt>
      <dd className="number">{children}</dd>
    </div>
  );
}
