/** Passes the messages of a connection to the jobs that they belong to. */

import { InvalidMessage, reportUncaught } from "./errors.js";
import type { Job } from "./job.js";
import { isJobEventName, parse, parseEvent, parseGap } from "./parse.js";
import type { JoinedMessage, LeftMessage } from "./protocol.js";

/** Receives the messages that concern more than a job's record. */
export interface MessageHost {
  followedJob(jobId: string): Job | undefined;
  onJoined?(job: Job, joined: JoinedMessage): void;
  onLeft(left: LeftMessage): void;
  onEvent?(job: Job, seq: number): void;
}

/** Validate and apply a message. A message that violates the protocol is reported and ignored. */
export function dispatchMessage(name: string, payload: unknown, host: MessageHost): void {
  reportInvalidMessage(() => applyMessage(name, payload, host));
}

/** Call `apply`. An `InvalidMessage` is reported; other errors pass. */
export function reportInvalidMessage(apply: () => void): void {
  try {
    apply();
  } catch (error) {
    if (!(error instanceof InvalidMessage)) {
      throw error;
    }
    reportUncaught(error);
  }
}

function applyMessage(name: string, payload: unknown, host: MessageHost): void {
  if (name === "joined") {
    const joined = parse(name, payload);
    const job = host.followedJob(joined.job_id);
    job?.handleJoined(joined);
    job && host.onJoined?.(job, joined);
  } else if (name === "left") {
    host.onLeft(parse(name, payload));
  } else if (name === "job_gap") {
    const gap = parseGap(payload);
    host.followedJob(gap.job_id)?.handleGap(gap);
  } else if (isJobEventName(name)) {
    const event = parseEvent(name, payload);
    const job = host.followedJob(event.job_id);
    job?.handleEvent(event);
    job && host.onEvent?.(job, event.seq);
  }
}
