import { type JobcastError, JobFailed } from "./errors.js";
import type { Job } from "./job.js";
import type { JobEvent } from "./protocol.js";

/**
 * The events of a job: what is known of it, then what comes, and its end as the last.
 *
 * @throws JobRefused, ConnectionRefused, or the signal's reason.
 */
export async function* eventsOf(job: Job, signal?: AbortSignal): AsyncGenerator<JobEvent, void> {
  signal?.throwIfAborted();
  const queue: JobEvent[] = [];
  let isEnded = false; // the latest run has ended, as far as it was told
  let isDone = false;
  let problem: JobcastError | null = null;
  let wake = (): void => {};
  const abort = (): void => wake();
  signal?.addEventListener("abort", abort);
  const stop = job.follow({
    see(event, live) {
      if (!isDone) {
        queue.push(event);
        isEnded = isEnd(event) || (isEnded && event.type !== "job_status");
        // An end that was told with what came before may have been followed by another run.
        isDone = live && isEnded;
        wake();
      }
    },
    settled() {
      isDone ||= isEnded;
      wake();
    },
    failed(error) {
      problem ??= error;
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
      } else if (problem) {
        throw problem as JobcastError;
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
 * What a job gives.
 *
 * @throws JobFailed, and what {@link eventsOf} throws.
 */
export async function resultOf(job: Job, signal?: AbortSignal): Promise<unknown> {
  let end: JobEvent | undefined;
  for await (const event of eventsOf(job, signal)) {
    end = isEnd(event) ? event : end;
  }
  if (end?.type === "job_error") {
    throw new JobFailed(job.jobId, end.error, end.message, end.reason);
  }
  return end?.type === "job_complete" ? end.result : undefined;
}

function isEnd(event: JobEvent): boolean {
  return event.type === "job_complete" || event.type === "job_error";
}
