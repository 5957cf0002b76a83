/** Status badges. Each has a label, a tone and an icon, because colour alone is not accessible. */

import type { JobState, Reason, State } from "@jobcast/client";
import { labelOf } from "./openValue";
import { reasonText } from "./reasonText";

export type Tone = "quiet" | "active" | "warn" | "good" | "bad";
export type Badge = {
  readonly label: string;
  readonly tone: Tone;
  readonly icon:
    | "dots"
    | "clock"
    | "play"
    | "retry"
    | "pause"
    | "check"
    | "cross"
    | "stop"
    | "lock";
};

/** Return the badge of a followed job. */
export function statusBadge(job: JobState): Badge {
  if (job.joined === "refused") {
    return { label: "Not available", tone: "quiet", icon: "lock" };
  }
  return isLoading(job) && job.status === "pending"
    ? { label: "Loading", tone: "quiet", icon: "dots" }
    : badgeOf(job.status, job.error?.reason ?? null);
}

/** Return the badge of a status, and of the reason if the job has failed. */
export function badgeOf(status: State, reason: Reason | null): Badge {
  switch (status) {
    case "pending":
      return { label: "Unknown", tone: "quiet", icon: "dots" };
    case "queued":
      return { label: "Queued", tone: "quiet", icon: "clock" };
    case "started":
      return { label: "Running", tone: "active", icon: "play" };
    case "retrying":
      return { label: "Retrying", tone: "warn", icon: "retry" };
    case "stalled":
      return { label: "Stalled", tone: "warn", icon: "pause" };
    case "complete":
      return { label: "Done", tone: "good", icon: "check" };
    case "cancelling":
      return { label: "Cancelling", tone: "active", icon: "stop" };
    case "cancelled":
      return { label: "Cancelled", tone: "quiet", icon: "stop" };
    case "error":
      return errorBadge(reason ?? "failure");
    default:
      return { label: labelOf(status), tone: "quiet", icon: "dots" };
  }
}

/** Return whether the job's state is not known yet. */
export function isLoading(job: JobState): boolean {
  return job.joined !== "yes" && job.joined !== "refused" && job.updatedAt === null;
}

/** Return the status of a followed job for the attribute `data-status`. */
export function shownStatus(job: JobState): string {
  return job.joined === "refused" ? "refused" : isLoading(job) ? "loading" : job.status;
}

/** Return whether a job ended because somebody wanted it to: this is no failure. */
export function isCancellation(reason: Reason | null): boolean {
  return reason === "revoked" || reason === "cancelled";
}

function errorBadge(reason: Reason): Badge {
  const { label } = reasonText(reason);
  return isCancellation(reason)
    ? { label, tone: "quiet", icon: "stop" }
    : { label, tone: "bad", icon: "cross" };
}
