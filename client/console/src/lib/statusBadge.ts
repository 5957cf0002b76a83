/** Status badges. Each has a label, a tone and an icon, because colour alone is not accessible. */

import type { JobState } from "@jobcast/client";
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

export type FilterGroup = "active" | "failed" | "done" | "none";

/** Return the badge of a job's status. */
export function statusBadge(job: JobState): Badge {
  if (job.joined === "refused") {
    return { label: "Not available", tone: "quiet", icon: "lock" };
  }
  switch (job.status) {
    case "pending":
      return isLoading(job)
        ? { label: "Loading", tone: "quiet", icon: "dots" }
        : { label: "Unknown", tone: "quiet", icon: "dots" };
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
    case "error":
      return errorBadge(job);
    default:
      return { label: labelOf(job.status), tone: "quiet", icon: "dots" };
  }
}

/** Return whether the job's state is not known yet. */
export function isLoading(job: JobState): boolean {
  return job.joined !== "yes" && job.joined !== "refused" && job.updatedAt === null;
}

/** Return the filter that a job belongs to. */
export function filterGroup(job: JobState): FilterGroup {
  if (job.joined === "refused" || isLoading(job)) {
    return "none";
  }
  if (job.status === "complete") {
    return "done";
  }
  return job.status === "error" ? "failed" : "active";
}

function errorBadge(job: JobState): Badge {
  const reason = job.error?.reason ?? "failure";
  const { label } = reasonText(reason);
  return reason === "revoked"
    ? { label, tone: "quiet", icon: "stop" }
    : { label, tone: "bad", icon: "cross" };
}
