/** How a job's state looks: a word, a tone and an icon, so that nothing hangs on colour alone. */

import type { JobState } from "@jobcast/client";
import { reasonWords } from "./reasons";

export type Tone = "quiet" | "active" | "warn" | "good" | "bad";
export type Face = {
  readonly word: string;
  readonly tone: Tone;
  readonly icon:
    | "dots"
    | "clock"
    | "play"
    | "again"
    | "pause"
    | "check"
    | "cross"
    | "stop"
    | "lock";
};

export type Bucket = "active" | "failed" | "done" | "none";

export function faceOf(job: JobState): Face {
  if (job.joined === "refused") {
    return { word: "Not available", tone: "quiet", icon: "lock" };
  }
  switch (job.status) {
    case "pending":
      return isUnknown(job)
        ? { word: "Loading", tone: "quiet", icon: "dots" }
        : { word: "Not heard of", tone: "quiet", icon: "dots" };
    case "queued":
      return { word: "Queued", tone: "quiet", icon: "clock" };
    case "started":
      return { word: "Running", tone: "active", icon: "play" };
    case "retrying":
      return { word: "Retrying", tone: "warn", icon: "again" };
    case "stalled":
      return { word: "Stalled", tone: "warn", icon: "pause" };
    case "complete":
      return { word: "Done", tone: "good", icon: "check" };
    case "error":
      return errorFace(job);
  }
}

/** Whether the server has said nothing of the job yet. */
export function isUnknown(job: JobState): boolean {
  return job.joined !== "yes" && job.joined !== "refused" && job.updatedAt === null;
}

export function bucketOf(job: JobState): Bucket {
  if (job.joined === "refused" || isUnknown(job)) {
    return "none";
  }
  if (job.status === "complete") {
    return "done";
  }
  return job.status === "error" ? "failed" : "active";
}

function errorFace(job: JobState): Face {
  const reason = job.error?.reason ?? "failure";
  const { word } = reasonWords(reason);
  return reason === "revoked"
    ? { word, tone: "quiet", icon: "stop" }
    : { word, tone: "bad", icon: "cross" };
}
