import { type JobcastError, JobFailed } from "./errors.js";
import type { Job } from "./job.js";
import type { JobComplete, JobError, JobEvent, JobGap } from "./protocol.js";

/**
 * Yield the events of a job: first those already known, then new ones. The terminal event is last.
 *
 * @throws JobRefused if the job may not be followed.
 * @throws ConnectionRefused if the connection is refused or closed.
 * @throws the signal's reason when the signal is aborted.
 */
export async function* iterateEvents(
  job: Job,
  signal?: AbortSignal,
): AsyncGenerator<JobEvent | JobGap, void> {
  signal?.throwIfAborted();
  const queue: (JobEvent | JobGap)[] = [];
  let isEnded = false; // the last event of the latest run was terminal
  let isDone = false; // the queue has the last event to yield
  let failure: JobcastError | null = null;
  let wake = (): void => {};
  const abort = (): void => wake();
  signal?.addEventListener("abort", abort);
  const stop = job.follow({
    onEvent(event, live) {
      if (!isDone) {
        queue.push(event);
        isEnded = isEndEvent(event) || (isEnded && event.type !== "job_status");
        // A terminal event in the replayed history may be followed by another run.
        isDone = live && isEnded;
        wake();
      }
    },
    onCaughtUp() {
      isDone ||= isEnded;
      wake();
    },
    onError(error) {
      failure ??= error;
      wake();
    },
  });
  try {
    for (;;) {
      signal?.throwIfAborted();
      const event = queue.shift();
      if (event) {
        yield event;
      } else if (isDone) {
        return;
      } else if (failure) {
        throw failure as JobcastError;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    stop();
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * Wait for a job to end and return its result.
 *
 * @throws JobFailed if the job ends with an error or is cancelled.
 * @throws the errors of {@link iterateEvents}.
 */
export async function waitForResult(job: Job, signal?: AbortSignal): Promise<unknown> {
  let end: JobComplete | JobError | undefined;
  for await (const event of iterateEvents(job, signal)) {
    end = isEndEvent(event) ? event : end;
  }
  if (end?.type === "job_error") {
    throw new JobFailed(job.jobId, end.error, end.message, end.reason);
  }
  return end?.result;
}

function isEndEvent(event: JobEvent | JobGap): event is JobComplete | JobError {
  return event.type === "job_complete" || event.type === "job_error";
}
