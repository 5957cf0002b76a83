/** The button that cancels a job: its request and the answer in one store, for the bindings. */

import type { CancelOptions, CancelResult } from "./cancelRequests.js";
import type { JobClient } from "./client.js";
import { JobcastError } from "./errors.js";
import { Listeners, type Store } from "./store.js";

/** The latest request to cancel a job. */
export interface CancelState {
  /** Whether the request waits for its answer. */
  readonly isPending: boolean;
  /** The answer; null before it arrives, and if the request failed. */
  readonly result: CancelResult | null;
  /** Why the request failed: `CancelRefused` or `ConnectionRefused`. */
  readonly error: JobcastError | null;
}

/** Cancel the job. It resolves to null if the request fails, or if there is no job. */
export type CancelJob = (options?: CancelOptions) => Promise<CancelResult | null>;

export const NOT_REQUESTED: CancelState = { isPending: false, result: null, error: null };

/** Cancels one job, and publishes how the request went. */
export class CancelAction implements Store<CancelState> {
  readonly #client: JobClient;
  readonly #jobId: string | null | undefined;
  readonly #listeners = new Listeners();
  #state = NOT_REQUESTED;
  #pending: Promise<CancelResult | null> | null = null;

  constructor(client: JobClient, jobId: string | null | undefined) {
    this.#client = client;
    this.#jobId = jobId;
  }

  readonly subscribe = (listener: () => void): (() => void) => this.#listeners.add(listener);

  readonly getSnapshot = (): CancelState => this.#state;

  /** Request it. A second click while the request waits shares its answer. */
  readonly cancel: CancelJob = (options) => {
    this.#pending ??= this.#request(options).finally(() => {
      this.#pending = null;
    });
    return this.#pending;
  };

  async #request(options: CancelOptions | undefined): Promise<CancelResult | null> {
    if (!this.#jobId) {
      return null;
    }
    this.#set({ ...NOT_REQUESTED, isPending: true });
    try {
      const result = await this.#client.cancel(this.#jobId, options);
      this.#set({ ...NOT_REQUESTED, result });
      return result;
    } catch (error) {
      const isKnown = error instanceof JobcastError;
      this.#set({ ...NOT_REQUESTED, error: isKnown ? error : null });
      if (!isKnown) {
        throw error;
      }
      return null;
    }
  }

  #set(state: CancelState): void {
    this.#state = state;
    this.#listeners.notify();
  }
}
