/** Texts for the reasons why jobs end with an error, with advice. */

import type { Reason } from "@jobcast/client";
import { labelOf } from "./openValue";

interface ReasonText {
  /** The status in one or two words. */
  readonly label: string;
  /** The start of a sentence that continues with the duration. */
  readonly verb: string;
  readonly cause: string;
  readonly advice?: string;
}

const REASONS: ReadonlyMap<Reason, ReasonText> = new Map(
  Object.entries<ReasonText>({
    failure: {
      label: "Failed",
      verb: "Failed",
      cause: "The task raised an error.",
      advice: "The task does not run again by itself. Fix the error, then start it again.",
    },
    revoked: {
      label: "Revoked",
      verb: "Revoked",
      cause: "The job was revoked on purpose.",
      advice: "Nothing is broken. Start the job again if you still need it.",
    },
    cancelled: {
      label: "Cancelled",
      verb: "Cancelled",
      cause: "The job was cancelled on request.",
      advice: "Nothing is broken. Start the job again if you still need it.",
    },
    time_limit: {
      label: "Timed out",
      verb: "Stopped",
      cause: "The task exceeded its time limit.",
      advice: "Give the task less work, or ask for a higher time limit.",
    },
    worker_lost: {
      label: "Worker lost",
      verb: "Lost",
      cause: "The worker process was killed or shut down, or stopped reporting.",
      advice: "Often the machine ran out of memory or was restarted. You can start the job again.",
    },
    expired: {
      label: "Expired",
      verb: "Expired",
      cause: "The job expired before a worker started it.",
      advice: "The workers were busy or not running. Start the job again when they are available.",
    },
    rejected: {
      label: "Rejected",
      verb: "Rejected",
      cause: "The task or the worker rejected the job.",
      advice: "A worker may not know a task of this name. Check the versions of the workers.",
    },
  }),
);

export function reasonText(reason: Reason): ReasonText {
  const label = labelOf(reason);
  return (
    REASONS.get(reason) ?? {
      label,
      verb: label,
      cause: `The job ended with the reason “${reason}”.`,
    }
  );
}
