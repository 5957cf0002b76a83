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
    ? { label: isLost(job) ? "Not connected" : "Loading", tone: "quiet", icon: "dots" }
    : badgeOf(job.status, job.error?.reason ?? job.cancellation?.reason ?? null);
}

/** Return the badge of a status, and of the reason if the job has failed or was cancelled. */
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
      return { label: reasonText(reason ?? "cancelled").label, tone: "quiet", icon: "stop" };
    case "error":
      return { label: reasonText(reason ?? "failure").label, tone: "bad", icon: "cross" };
    default:
      return { label: labelOf(status), tone: "quiet", icon: "dots" };
  }
}

/** Return whether the job's state is not known yet. */
export function isLoading(job: JobState): boolean {
  return job.joined !== "yes" && job.joined !== "refused" && job.updatedAt === null;
}

/** Return whether the connection of a followed job is lost or refused. */
function isLost({ connection }: JobState): boolean {
  return connection === "reconnecting" || connection === "refused";
}

/** Return the status of a followed job for the attribute `data-status`. */
export function shownStatus(job: JobState): string {
  return job.joined === "refused" ? "refused" : isLoading(job) ? "loading" : job.status;
}
