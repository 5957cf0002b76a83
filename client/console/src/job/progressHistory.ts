/** Records the progress over time of the open jobs, from the moment the page follows them. */

import type { JobClient, Store } from "@jobcast/client";
import { createContext, useContext } from "react";
import { addSample, type Series } from "../lib/progressSeries";

const EMPTY: Series = [];

export class ProgressHistory {
  readonly #client: JobClient;
  readonly #series = new Map<string, Series>();
  readonly #stops = new Map<string, () => void>();

  constructor(client: JobClient) {
    this.#client = client;
  }

  /** Follow exactly these jobs. */
  follow(jobIds: readonly string[]): void {
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
          this.#series.set(jobId, addSample(this.get(jobId), event, state));
        });
        this.#stops.set(jobId, stop);
      }
    }
  }

  /** Return the recorded progress of a job. The object is the same until it grows. */
  get(jobId: string): Series {
    return this.#series.get(jobId) ?? EMPTY;
  }

  /** Return the series as a store. It notifies like the job's store: at most once per frame. */
  store(jobId: string): Store<Series> {
    const { subscribe } = this.#client.job(jobId);
    return { subscribe, getSnapshot: () => this.get(jobId) };
  }
}

export const ProgressHistoryContext = createContext<ProgressHistory | null>(null);

export function useProgressHistory(): ProgressHistory {
  const history = useContext(ProgressHistoryContext);
  if (history === null) {
    throw new Error("this component needs a <ProgressHistoryContext> above it");
  }
  return history;
}
