import { isTerminal, type JobState } from "@jobcast/client";
import type { ReactElement, ReactNode } from "react";
import { isCut, runsOf } from "../lib/attempts";
import { about } from "../lib/durations";
import { leftOf } from "../lib/headline";
import { count, rate } from "../lib/numbers";
import { dayAndTimeOf, wholeTimeOf } from "../lib/times";
import { useNow } from "../lib/useNow";
import { Clock } from "../ui/Clock";

/** What the time is that a job in this state has taken. */
const SINCE: Record<JobState["status"], string> = {
  pending: "Waiting for",
  queued: "Waiting for",
  started: "Running for",
  retrying: "Waiting for",
  stalled: "Stalled for",
  complete: "Took",
  error: "Took",
};

/** The numbers of a job, each with its name. */
export function Facts({ job }: { readonly job: JobState }): ReactElement {
  const now = useNow(!isTerminal(job.status));
  const isRunning = job.status === "started";
  const left = leftOf(job, now);
  const start = job.startedAt ?? job.queuedAt;
  const since =
    isTerminal(job.status) || isRunning ? start : (job.history.at(-1)?.timestamp ?? start);
  const runs = runsOf(job);
  const first = job.history[0]?.timestamp ?? null;
  return (
    <dl className="facts">
      {since === null ? null : (
        <Fact name={SINCE[job.status]}>
          <Clock from={since} to={job.endedAt} />
        </Fact>
      )}
      {runs > 1 && job.endedAt !== null && first !== null && !isCut(job) ? (
        <Fact name="With all attempts">
          <Clock from={first} to={job.endedAt} />
        </Fact>
      ) : null}
      {isRunning ? <Fact name="Time left">{left === null ? "not known" : about(left)}</Fact> : null}
      {job.current === null ? null : (
        <Fact name="Items">
          {count(job.current)}
          {job.total === null ? null : <span className="faint"> of {count(job.total)}</span>}
        </Fact>
      )}
      {job.rate === null ? null : (
        <Fact name={isRunning ? "Rate" : "Last rate"}>{rate(job.rate)}</Fact>
      )}
      {job.stage === null ? null : <Fact name="Stage">{job.stage}</Fact>}
      {job.attempt > 1 || runs > 1 ? (
        <Fact name="Attempt">
          {job.attempt}
          {job.run === null || job.run === job.attempt ? null : (
            <span className="faint"> (run {job.run})</span>
          )}
        </Fact>
      ) : null}
      {start === null ? null : (
        <Fact name={job.startedAt === null ? "Sent" : "Started"}>
          <time dateTime={start} title={wholeTimeOf(start)}>
            {dayAndTimeOf(start, now === 0 ? Date.now() : now)}
          </time>
        </Fact>
      )}
    </dl>
  );
}

function Fact({
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
