import type { JobState } from "@jobcast/client";
import type { ReactElement } from "react";
import { faceOf } from "../lib/face";
import { doing } from "../lib/headline";
import { percent } from "../lib/numbers";

interface Props {
  readonly job: JobState;
  readonly name: string;
}

/** How far a job is. Where nobody knows, it says so, and moves. */
export function ProgressBar({ job, name }: Props): ReactElement {
  const { word, tone } = faceOf(job);
  const value = job.status === "complete" ? 100 : job.percentage;
  const isMoving = value === null && job.status === "started" && job.joined === "yes";
  const text = [value === null ? null : percent(value), word, doing(job)]
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
      aria-valuetext={value === null && isMoving ? `${text}, how far is not known` : text}
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
