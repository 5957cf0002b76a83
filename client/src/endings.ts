import type { FollowedJob } from "./followedJob.js";
import type { Cancellation, Failure } from "./record.js";
import { callSafely, type Store } from "./store.js";

type Ended<Result> = Extract<FollowedJob<Result>, { readonly isDone: true }>;

/** Called when a job ends. */
export interface EndCallbacks<Result> {
  /** Called once when the job completes, also if it completed before it was followed. */
  readonly onComplete?: ((result: Result) => void) | undefined;
  /** Called once when the job fails, also if it failed before it was followed. */
  readonly onError?: ((failure: Failure) => void) | undefined;
  /** Called once when the job ends because it was cancelled, also before it was followed. */
  readonly onCancel?: ((cancellation: Cancellation) => void) | undefined;
}

/** Reports each end of a job once, however often it is observed. */
export class EndReporter<Result> {
  readonly #callbacks: () => EndCallbacks<Result>;
  #reported: string | null = null;

  /** @param callbacks returns the current callbacks. */
  constructor(callbacks: () => EndCallbacks<Result>) {
    this.#callbacks = callbacks;
  }

  /** Observe a job. Returns a function that stops it. */
  observe(store: Store<FollowedJob<Result>>): () => void {
    const check = (): void => this.#check(store.getSnapshot());
    const stop = store.subscribe(check);
    check();
    return stop;
  }

  #check(job: FollowedJob<Result>): void {
    const end = `${job.jobId} ${job.endedAt}`;
    if (!job.isDone || end === this.#reported) {
      return;
    }
    this.#reported = end;
    // A caller of `observe` that gets an exception gets no function that stops it.
    callSafely(() => this.#report(job));
  }

  #report(job: Ended<Result>): void {
    const { onComplete, onError, onCancel } = this.#callbacks();
    switch (job.status) {
      case "complete":
        onComplete?.(job.result);
        break;
      case "cancelled":
        onCancel?.(job.cancellation);
        break;
      default:
        onError?.(job.error);
    }
  }
}
