/** Keeps the progress over time of every job in the list, from the moment that the page follows it. */

import type { JobClient, Store } from "@jobcast/client";
import { type Series, withEvent } from "../lib/samples";

const NOTHING: Series = [];

export class ProgressBook {
  readonly #client: JobClient;
  readonly #series = new Map<string, Series>();
  readonly #stops = new Map<string, () => void>();

  constructor(client: JobClient) {
    this.#client = client;
  }

  /** Follows these jobs and no others. */
  keep(jobIds: readonly string[]): void {
    const wanted = new Set(jobIds);
    for (const [jobId, stop] of this.#stops) {
      if (!wanted.has(jobId)) {
        stop();
        this.#stops.delete(jobId);
        this.#series.delete(jobId);
      }
    }
    for (const jobId of wanted) {
      if (!this.#stops.has(jobId)) {
        const stop = this.#client.follow(jobId, (event, state) => {
          this.#series.set(jobId, withEvent(this.of(jobId), event, state));
        });
        this.#stops.set(jobId, stop);
      }
    }
  }

  /** What was seen of a job: the same object until there is more. */
  of(jobId: string): Series {
    return this.#series.get(jobId) ?? NOTHING;
  }

  /** As a store: it changes with the job's state, which tells everybody at most once a frame. */
  store(jobId: string): Store<Series> {
    const { subscribe } = this.#client.job(jobId);
    return { subscribe, getSnapshot: () => this.of(jobId) };
  }
}
