import type { ReactElement } from "react";
import { formatPercent } from "../lib/formatNumber";
import type { Badge } from "../lib/statusBadge";

interface Props {
  readonly badge: Badge;
  readonly percentage: number | null;
  /** Whether the job runs and its percentage is unknown: the bar is then animated. */
  readonly isMoving: boolean;
  /** What the job does. */
  readonly activity: string | null;
  /** The name of the job. */
  readonly name: string;
}

/** The progress of a job. */
export function ProgressBar({ badge, percentage, isMoving, activity, name }: Props): ReactElement {
  const text = [percentage === null ? null : formatPercent(percentage), badge.label, activity]
    .filter(Boolean)
    .join(", ");
  return (
    <div
      className="bar"
      role="progressbar"
      aria-label={`Progress of ${name}`}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percentage === null ? undefined : Math.floor(percentage)}
      aria-valuetext={isMoving ? `${text}, progress unknown` : text}
      data-tone={badge.tone}
      data-moving={isMoving || undefined}
    >
      <div
        className="bar-fill"
        style={{ transform: `scaleX(${isMoving ? 1 : (percentage ?? 0) / 100})` }}
      />
    </div>
  );
}
