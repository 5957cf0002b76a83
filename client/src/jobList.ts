import { compareSummaries, type JobSummary } from "./jobSummary.js";

/**
 * The jobs of a feed in order. `items` is immutable: a change after it was read copies the array
 * once, whatever the number of changes until it is read again.
 */
export class JobList {
  readonly #byId = new Map<string, JobSummary>();
  #items: JobSummary[] = [];
  #isShared = false; // a reader has `#items`

  /** The jobs, the newest first. The same array until a job changes. */
  get items(): readonly JobSummary[] {
    this.#isShared = true;
    return this.#items;
  }

  get size(): number {
    return this.#byId.size;
  }

  get(jobId: string): JobSummary | undefined {
    return this.#byId.get(jobId);
  }

  /** Add a job, or replace its summary. */
  put(job: JobSummary): void {
    const known = this.#byId.get(job.jobId);
    if (known === job) {
      return;
    }
    this.#byId.set(job.jobId, job);
    const items = this.#writable();
    if (known && compareSummaries(known, job) === 0) {
      items[findPlace(items, known)] = job;
      return;
    }
    if (known) {
      items.splice(findPlace(items, known), 1);
    }
    items.splice(findPlace(items, job), 0, job);
  }

  /** Remove a job. Returns whether the list had it. */
  remove(jobId: string): boolean {
    const known = this.#byId.get(jobId);
    if (!known) {
      return false;
    }
    this.#byId.delete(jobId);
    const items = this.#writable();
    items.splice(findPlace(items, known), 1);
    return true;
  }

  #writable(): JobSummary[] {
    if (this.#isShared) {
      this.#items = this.#items.slice();
      this.#isShared = false;
    }
    return this.#items;
  }
}

/** Return the index of a job, or the one at which it has to be inserted. */
function findPlace(items: readonly JobSummary[], job: JobSummary): number {
  let [low, high] = [0, items.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareSummaries(items[middle] as JobSummary, job) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
