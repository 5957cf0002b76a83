/** A followed feed: its jobs, the state of its join, and the views that share both. */

import type { Problem } from "./connectionProblem.js";
import { covers, type FeedFilter, isEmptyFilter, isSameFilter, unionOf } from "./feedFilter.js";
import type { FeedView } from "./feedView.js";
import { JobList } from "./jobList.js";
import { type JobSummary, newerSummary, rereadSummary, toSummary } from "./jobSummary.js";
import type { FeedJobMessage, FeedSnapshotMessage, JoinFeedRequest } from "./protocol.js";

const LEAST_LOAD = 100; // older jobs to request at once: a message of the server has as many
// A slow connection has to receive the answer before the acknowledgement counts as lost.
const LARGEST_REQUEST = 1000; // jobs

export class Feed {
  readonly name: string;
  readonly views: Set<FeedView> = new Set();
  readonly #onChange: () => void;
  #list = new JobList();
  /** The snapshot that is arriving. It replaces the list at its end. */
  #arriving: JobList | null = null;
  /** Jobs that left the feed while a snapshot arrives. */
  readonly #gone = new Set<string>();
  /** The latest request, until the connection ends. */
  #request: JoinFeedRequest | null = null;
  /** Whether the snapshot of the latest request is incomplete. */
  #isBusy = false;
  #received = 0; // jobs of that snapshot
  #wanted = 0; // jobs that the views showed at the latest join
  /** The filter of the latest join. */
  #filter: FeedFilter | null = null;
  /** The filter that the list is complete for, up to the cursor. */
  #shownFilter: FeedFilter | null = null;
  #isLive = false;
  #cursor: string | null = null;
  #total: number | null = null;
  #refusal: Problem | null = null;
  /** Why the server refuses the join for now. */
  #temporaryProblem: Problem | null = null;

  /** @param onChange is called after each change of what views show. */
  constructor(name: string, onChange: () => void) {
    this.name = name;
    this.#onChange = onChange;
  }

  /** The jobs, the newest first. The same array until a job changes. */
  get jobs(): readonly JobSummary[] {
    return this.#list.items;
  }

  get refusal(): Problem | null {
    return this.#refusal;
  }

  /** Why the server cannot list the jobs at the moment. The join is repeated until it can. */
  get temporaryProblem(): Problem | null {
    return this.#temporaryProblem;
  }

  /** Whether the list is up to date. */
  get isLive(): boolean {
    return this.#isLive;
  }

  /** Whether there are older jobs than those in the list. */
  get hasOlder(): boolean {
    return this.#cursor !== null;
  }

  /** Whether the latest join took effect, so that incoming messages belong to it. */
  get acceptsMessages(): boolean {
    return this.#isLive || this.#arriving !== null;
  }

  /** Whether the list has all jobs that match a filter, up to the cursor. */
  isCompleteFor(filter: FeedFilter): boolean {
    return this.#shownFilter !== null && covers(this.#shownFilter, filter);
  }

  /** Return the number of jobs of the feed that match a filter; null if it is unknown. */
  totalOf(filter: FeedFilter): number | null {
    const isKnown = this.#shownFilter !== null && isSameFilter(this.#shownFilter, filter);
    return isKnown ? this.#total : null;
  }

  /** Whether the views need another join than the latest one. */
  get needsJoin(): boolean {
    return this.#filter === null || !isSameFilter(this.#filter, this.#wantedFilter);
  }

  /** Return whether `request` is the latest one. Answers to earlier ones are obsolete. */
  isLatest(request: JoinFeedRequest): boolean {
    return this.#request === request;
  }

  /** Start a join for what the views show. */
  beginJoin(): JoinFeedRequest {
    const filter = this.#wantedFilter;
    this.#wanted = Math.max(...[...this.views].map((view) => view.wanted));
    this.#filter = filter;
    this.#refusal = null;
    return this.#begin({
      feed: this.name,
      ...(isEmptyFilter(filter) ? {} : { filter }),
      limit: Math.min(this.#wanted, LARGEST_REQUEST),
    });
  }

  /** Start to load the older jobs that the views lack. Returns null if there is nothing to load. */
  beginLoad(): JoinFeedRequest | null {
    const missing = this.#arriving ? this.#wanted - this.#arriving.size : this.#missing;
    if (!this.acceptsMessages || this.#isBusy || this.#cursor === null || missing <= 0) {
      return null;
    }
    const limit = Math.min(Math.max(missing, LEAST_LOAD), LARGEST_REQUEST);
    return this.#begin({ feed: this.name, after: this.#cursor, limit });
  }

  handleAccepted(total: number): void {
    this.#total = total;
    this.#temporaryProblem = null;
    this.#onChange();
  }

  /** The server refused a request, or ended the join. */
  handleRefused({ code, message }: Problem): void {
    const filter = this.#filter;
    this.#disconnect();
    this.#clear();
    this.#filter = filter; // the same join would be refused again
    this.#refusal = { code, message };
    this.#onChange();
  }

  /** The server refused a join for now: an earlier one may have ended, too. */
  suspend({ code, message }: Problem): void {
    this.#arriving = null;
    this.#isLive = false;
    this.#temporaryProblem = { code, message };
    this.#onChange();
  }

  /** The connection is lost, and the join with it. The list stays. */
  markDisconnected(): void {
    this.#disconnect();
    this.#onChange();
  }

  /** Discard the list, and the join with it. */
  reset(): void {
    this.#disconnect();
    this.#clear();
    this.#onChange();
  }

  handleSnapshot(snapshot: FeedSnapshotMessage): void {
    if (snapshot.reset) {
      this.#beginSnapshot();
    }
    if (!this.acceptsMessages) {
      return;
    }
    const list = this.#arriving ?? this.#list;
    this.#received += snapshot.jobs.length;
    for (const message of snapshot.jobs) {
      if (!this.#gone.has(message.job_id)) {
        this.#put(list, toSummary(message));
      }
    }
    if (snapshot.last) {
      this.#endSnapshot(snapshot.cursor ?? null);
    }
    this.#onChange();
  }

  handleJob(message: FeedJobMessage): void {
    if (!this.acceptsMessages) {
      return;
    }
    this.#gone.delete(message.job_id);
    if (this.#put(this.#arriving ?? this.#list, toSummary(message))) {
      this.#count(1);
    }
    this.#onChange();
  }

  handleGone(jobId: string): void {
    if (!this.acceptsMessages) {
      return;
    }
    if (this.#arriving || this.#isBusy) {
      this.#gone.add(jobId);
    }
    if ((this.#arriving ?? this.#list).remove(jobId)) {
      this.#count(-1);
    }
    this.#onChange();
  }

  /** Tell the views that the feed may have changed. */
  notify(): void {
    for (const view of this.views) {
      view.notify();
    }
  }

  get #missing(): number {
    return Math.max(0, ...[...this.views].map((view) => view.missing));
  }

  get #wantedFilter(): FeedFilter {
    return unionOf([...this.views].map((view) => view.filter));
  }

  #begin(request: JoinFeedRequest): JoinFeedRequest {
    this.#request = request;
    this.#isBusy = true;
    this.#received = 0;
    this.#onChange();
    return request;
  }

  #beginSnapshot(): void {
    this.#gone.clear();
    this.#temporaryProblem = null;
    // Without a list to keep, the pages show as they arrive.
    this.#arriving = this.#list.size === 0 ? this.#list : new JobList();
  }

  #endSnapshot(cursor: string | null): void {
    this.#cursor = this.#received > 0 ? cursor : null;
    if (this.#arriving && !this.#isTooShort(this.#arriving)) {
      this.#list = this.#arriving;
      this.#shownFilter = this.#filter;
      this.#arriving = null;
      this.#isLive = true;
    }
    this.#isBusy = false;
    this.#gone.clear();
  }

  /** Whether a list would replace a longer one that the next request completes. */
  #isTooShort(list: JobList): boolean {
    return this.#cursor !== null && list !== this.#list && list.size < this.#wanted;
  }

  #disconnect(): void {
    this.#request = null;
    this.#temporaryProblem = null;
    this.#filter = null;
    this.#arriving = null;
    this.#isLive = false;
    this.#isBusy = false;
  }

  #clear(): void {
    this.#list = new JobList();
    this.#shownFilter = null;
    this.#cursor = null;
    this.#total = null;
  }

  /** Put a job into a list, unless it has a newer summary. Returns whether the job is new there. */
  #put(list: JobList, received: JobSummary): boolean {
    const known = list.get(received.jobId);
    const isReread = list !== this.#list;
    const shown = isReread ? this.#list.get(received.jobId) : undefined;
    list.put(newerSummary(known, isReread ? rereadSummary(shown, received) : received));
    return known === undefined;
  }

  /** Keep the total up to date between two snapshots. */
  #count(change: 1 | -1): void {
    if (this.#total !== null && !this.#arriving) {
      this.#total += change;
    }
  }
}
