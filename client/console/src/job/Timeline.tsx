import { isTerminal, type JobState } from "@jobcast/client";
import type { ReactElement } from "react";
import { formatClock, formatDuration } from "../lib/formatDuration";
import { pluralize } from "../lib/formatNumber";
import { formatTime } from "../lib/formatTime";
import { isTruncated, type Step, timelineSteps } from "../lib/timeline";
import { useNow } from "../lib/useNow";
import { Icon, type IconName } from "../ui/Icon";

const ICONS: ReadonlyMap<Step["status"], IconName> = new Map(
  Object.entries<IconName>({
    pending: "dots",
    queued: "clock",
    started: "play",
    retrying: "retry",
    stalled: "pause",
    cancelling: "stop",
    cancelled: "stop",
    complete: "check",
    error: "cross",
  }),
);
const SHOWN = 8; // the number of steps to show, from the end

/** The job's status changes, with the duration of each status. */
export function Timeline({ job }: { readonly job: JobState }): ReactElement | null {
  const now = useNow(!isTerminal(job.status));
  const steps = timelineSteps(job.history);
  if (steps.length === 0) {
    return null;
  }
  const hidden = Math.max(0, steps.length - SHOWN);
  return (
    <section className="panel timeline" aria-labelledby="timeline-title">
      <h2 id="timeline-title">Timeline</h2>
      {isTruncated(job) ? <p className="faint">Earlier steps are no longer stored.</p> : null}
      {hidden > 0 ? <p className="faint">{pluralize(hidden, "earlier step")}</p> : null}
      <ol>
        {steps.slice(hidden).map((step) => (
          <li key={step.seq} data-status={step.status}>
            <span className="step-icon">
              <Icon name={ICONS.get(step.status) ?? "dots"} />
            </span>
            <span className="step-label">{step.label}</span>
            <time className="number faint" dateTime={step.timestamp} title={step.timestamp}>
              {formatTime(step.timestamp)}
            </time>
            <span className="step-length number">{stepDuration(step, now)}</span>
            {step.detail === null ? null : <span className="step-detail">{step.detail}</span>}
          </li>
        ))}
      </ol>
    </section>
  );
}

function stepDuration(step: Step, now: number): string | null {
  if (isTerminal(step.status) || step.status === "cancelled") {
    return null;
  }
  return step.duration === null
    ? formatClock(now - Date.parse(step.timestamp))
    : formatDuration(step.duration);
}
