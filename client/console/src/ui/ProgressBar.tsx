import type { JobState } from "@jobcast/client";
import type { ReactElement } from "react";
import { formatPercent } from "../lib/formatNumber";
import { activity } from "../lib/headline";
import { statusBadge } from "../lib/statusBadge";

interface Props {
  readonly job: JobState;
  readonly name: string;
}

/** The progress of a job. A running job without a percentage has an animated bar. */
export function ProgressBar({ job, name }: Props): ReactElement {
  const { label, tone } = statusBadge(job);
  const value = job.status === "complete" ? 100 : job.percentage;
  const isMoving = value === null && job.status === "started" && job.joined === "yes";
  const text = [value === null ? null : formatPercent(value), label, activity(job)]
    .filter((part) => part !== null)
    .join(", ");
  return (
    <div
      className="bar"
      role="progressbar"
      aria-label={`Progress of ${name}`}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={value === null ? undefined : Math.floor(value)}
      aria-valuetext={value === null && isMoving ? `${text}, progress unknown` : text}
      data-tone={tone}
      data-moving={isMoving || undefined}
    >
      <div
        className="bar-fill"
        style={{ transform: `scaleX(${isMoving ? 1 : (value ?? 0) / 100})` }}
      />
    </div>
  );
}
