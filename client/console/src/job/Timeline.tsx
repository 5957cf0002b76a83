import { isTerminal, type JobState } from "@jobcast/client";
import type { ReactElement } from "react";
import { isCut, type Step, stepsOf } from "../lib/attempts";
import { clock, span } from "../lib/durations";
import { plural } from "../lib/numbers";
import { timeOf } from "../lib/times";
import { useNow } from "../lib/useNow";
import { Icon, type IconName } from "../ui/Icon";

const ICONS: Record<Step["status"], IconName> = {
  pending: "dots",
  queued: "clock",
  started: "play",
  retrying: "again",
  stalled: "pause",
  complete: "check",
  error: "cross",
};
const SHOWN = 8; // steps at the end of a long way

/** The job's way: from state to state, with how long it was in each. */
export function Timeline({ job }: { readonly job: JobState }): ReactElement | null {
  const now = useNow(!isTerminal(job.status));
  const steps = stepsOf(job.history);
  if (steps.length === 0) {
    return null;
  }
  const hidden = Math.max(0, steps.length - SHOWN);
  return (
    <section className="panel timeline" aria-labelledby="timeline-title">
      <h2 id="timeline-title">Timeline</h2>
      {isCut(job) ? <p className="faint">The steps before are not kept any more.</p> : null}
      {hidden > 0 ? <p className="faint">{plural(hidden, "earlier step")}</p> : null}
      <ol>
        {steps.slice(hidden).map((step) => (
          <li key={step.seq} data-status={step.status}>
            <span className="step-icon">
              <Icon name={ICONS[step.status]} />
            </span>
            <span className="step-label">{step.label}</span>
            <time className="number faint" dateTime={step.timestamp} title={step.timestamp}>
              {timeOf(step.timestamp)}
            </time>
            <span className="step-length number">{lengthOf(step, now)}</span>
            {step.detail === null ? null : <span className="step-detail">{step.detail}</span>}
          </li>
        ))}
      </ol>
    </section>
  );
}

function lengthOf(step: Step, now: number): string | null {
  if (isTerminal(step.status)) {
    return null;
  }
  return step.lasted === null ? `${clock(now - Date.parse(step.timestamp))}…` : span(step.lasted);
}
