/** Why a job has ended, in words, and what one may do about it. */

import type { Reason } from "@jobcast/client";

interface ReasonWords {
  /** The state, in a word or two. */
  readonly word: string;
  /** The beginning of a sentence that goes on with how long it took. */
  readonly verb: string;
  readonly why: string;
  readonly advice: string;
}

const REASONS: Record<Reason, ReasonWords> = {
  failure: {
    word: "Failed",
    verb: "Failed",
    why: "The task raised an error.",
    advice: "It does not run again by itself. Mend what the error says, then start it anew.",
  },
  revoked: {
    word: "Revoked",
    verb: "Revoked",
    why: "Somebody revoked it: it was called off on purpose.",
    advice: "Nothing is broken. Start it anew if it is still wanted.",
  },
  time_limit: {
    word: "Timed out",
    verb: "Stopped",
    why: "It ran for longer than it may.",
    advice: "Give it less to do, or have its time limit raised.",
  },
  worker_lost: {
    word: "Worker lost",
    verb: "Lost",
    why: "The process that ran it was killed or shut down, or is not heard of any more.",
    advice: "Often the machine ran out of memory, or was restarted. The job can be started anew.",
  },
  expired: {
    word: "Expired",
    verb: "Expired",
    why: "No worker began it before it expired.",
    advice: "The workers were busy or away. Start it anew when they are back.",
  },
  rejected: {
    word: "Rejected",
    verb: "Rejected",
    why: "The task, or the worker, would not do it.",
    advice: "Perhaps no worker knows a task of this name: look at the workers' versions.",
  },
};

export function reasonWords(reason: Reason): ReasonWords {
  return REASONS[reason];
}
