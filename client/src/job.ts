/** A job that is followed here: how far it was seen, and who is told. */

import type { JobcastError } from "./errors.js";
import { JobRefused } from "./errors.js";
import type { ConnectionState } from "./link.js";
import type { Cursor, JobEvent, JoinedMessage, Messages, State } from "./protocol.js";
import {
  emptyRecord,
  type Failure,
  type JobRecord,
  knownEvents,
  type LogLine,
  type Retry,
  type StatusChange,
  see,
  settle,
  withGap,
} from "./state.js";
import { attempt, Listeners, type Store } from "./store.js";

/** All that a page can show of a job. Dates are texts in RFC 3339, in UTC. */
export interface JobState {
  readonly jobId: string;
  readonly status: State;
  /** Whether the server takes this client for a follower of the job. */
  readonly joined: "no" | "joining" | "yes" | "refused";
  /** Why it is `refused`: `job_not_found`, `too_many_jobs`, `invalid_request`, ... */
  readonly refusal: { readonly code: string; readonly message: string } | null;
  /** The name of the Celery task. */
  readonly task: string | null;
  /** Which try of the task this is, or was: 1 for the first. */
  readonly attempt: number;
  readonly run: number | null;
  /** 0 to 100; null while it is not known. */
  readonly percentage: number | null;
  readonly message: string | null;
  readonly stage: string | null;
  readonly current: number | null;
  readonly total: number | null;
  /** Items a second. */
  readonly rate: number | null;
  /** Seconds left, as of `updatedAt`. */
  readonly eta: number | null;
  /** The retry that is due, while the job is `retrying`. */
  readonly retry: Retry | null;
  /** The last lines, as many as `logLimit` says. */
  readonly logs: readonly LogLine[];
  /** How many older lines there were. */
  readonly droppedLogs: number;
  /** Every change of the status, and the end, in order. */
  readonly history: readonly StatusChange[];
  /**
   * Where something may be missing, each as the `seq` after which it was: events that the server
   * did not keep any more when the connection was back. In order.
   */
  readonly gaps: readonly number[];
  /** What the task chose to show of its result; null until it is `complete`. */
  readonly result: unknown;
  readonly error: Failure | null;
  readonly queuedAt: string | null;
  /** When the present run began. */
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  readonly updatedAt: string | null;
  readonly connection: ConnectionState;
}

export type JobStore = Store<JobState>;

/** Who is told everything at once. */
export interface Follower {
  /** @param live whether it just happened, and isn't what the job did before it was joined. */
  see(event: JobEvent, live: boolean): void;
  /** Everything up to now was told. */
  settled?(): void;
  /** Nothing more can be told. */
  failed?(error: JobcastError): void;
}

/** What a job needs of the client. */
export interface JobHost {
  readonly logLimit: number;
  readonly connectionState: ConnectionState;
  /** Why the connection can't be had at all, if it is so. */
  readonly problem: JobcastError | null;
  followed(job: Job): void;
  /** Nobody follows it any more. */
  left(job: Job): void;
  changed(job: Job): void;
}

type Joined = JobState["joined"];

export class Job implements JobStore {
  readonly jobId: string;
  readonly #host: JobHost;
  readonly #listeners = new Listeners();
  readonly #followers = new Set<Follower>();
  #record: JobRecord = emptyRecord();
  #cursor: Cursor = { epoch: "", seq: 0 };
  #joined: Joined = "no";
  #refusal: JobState["refusal"] = null;
  #join: { joined: JoinedMessage | null } | null = null; // the latest one, while it isn't answered
  #after: Cursor | null = null; // what was seen before the latest join, while it isn't answered
  #isWhole = false; // the latest join has told of what was seen already: nothing is missing between
  #hears = false; // events belong to the latest join
  #snapshot: JobState | null = null;
  #shown: JobState | null = null; // while what the job did before is being told

  constructor(jobId: string, host: JobHost) {
    this.jobId = jobId;
    this.#host = host;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    return this.#enlist(() => this.#listeners.add(listener));
  };

  readonly getSnapshot = (): JobState => this.#shown ?? this.state;

  /** The state with all that was seen, also while it isn't shown yet. */
  get state(): JobState {
    const connection = this.#host.connectionState;
    if (this.#snapshot?.connection !== connection) {
      const joined = { joined: this.#joined, refusal: this.#refusal, connection };
      this.#snapshot = stateOf(this.jobId, this.#record, joined);
    }
    return this.#snapshot as JobState;
  }

  get isFollowed(): boolean {
    return this.#listeners.size + this.#followers.size > 0;
  }

  get isRefused(): boolean {
    return this.#joined === "refused";
  }

  /** Whether the latest join took effect: what comes belongs to it. */
  get hears(): boolean {
    return this.#hears;
  }

  get refusedWith(): string | null {
    return this.#refusal?.code ?? null;
  }

  /** Tells a follower what is known of the job, soon, and from then on what comes. */
  follow(follower: Follower): () => void {
    let isThere = true;
    let waiting: JobEvent[] | null = knownEvents(this.#record);
    const told: Follower = {
      see: (event, live) => (waiting ? waiting.push(event) : follower.see(event, live)),
      settled: () => waiting ?? follower.settled?.(),
      failed: (error) => waiting ?? follower.failed?.(error),
    };
    const stop = this.#enlist(() => {
      this.#followers.add(told);
      return () => this.#followers.delete(told);
    });
    // Not before the caller has what ends it.
    queueMicrotask(() => {
      const known = this.#host.connectionState === "closed" ? [] : (waiting ?? []);
      for (const event of known) {
        if (isThere) {
          attempt(() => follower.see(event, false));
        }
      }
      waiting = null;
      if (isThere) {
        this.#catchUp(follower);
      }
    });
    return () => {
      isThere = false;
      stop();
    };
  }

  /** The request to join, from where the job was seen. */
  beginJoin(): { request: Messages["join_job"]; join: object } {
    const join = { joined: null };
    this.#join = join;
    this.#hears = false;
    this.#enter("joining");
    this.#isWhole = false;
    // A join that broke off has not said whether what it told goes on from what was seen.
    this.#after ??= this.#cursor;
    const after = this.#after.epoch === "" ? {} : { after: this.#after };
    return { request: { job_id: this.jobId, ...after }, join };
  }

  /** Whether an answer is that of the latest join: of those before it nothing is of use. */
  isLatest(join: object): boolean {
    return this.#join === join;
  }

  /** The join took effect, or the server began the record anew. */
  begin(joined: JoinedMessage): void {
    if (this.#join) {
      this.#join.joined = joined;
      // What it did before is shown at once when all of it is there, not in fast motion.
      this.#shown ??= this.state;
    }
    this.#hears = this.#joined === "joining" || this.#joined === "yes";
    if (joined.epoch !== this.#cursor.epoch) {
      this.#cursor = { epoch: joined.epoch, seq: 0 };
      this.#after = null;
      this.#record = emptyRecord();
    }
    if (!this.#join) {
      this.#record = settle(this.#record, joined.status, joined.seq);
    }
    this.#change();
  }

  receive(event: JobEvent): void {
    if (!this.#hears) {
      return;
    }
    // What is kept of the logs and changes of a job is the last of them, without a hole.
    const seen = this.#after?.seq ?? 0;
    this.#isWhole ||= event.type !== "job_progress" && event.seq <= seen + 1;
    if (event.seq <= this.#cursor.seq) {
      return;
    }
    this.#cursor = { ...this.#cursor, seq: event.seq };
    this.#record = see(this.#record, event, this.#host.logLimit);
    this.#change();
    const live = this.#joined === "yes";
    for (const follower of [...this.#followers]) {
      attempt(() => follower.see(event, live));
    }
  }

  /** The latest join was accepted: what the record held was told. */
  accept(answer: Cursor & { readonly recovered: boolean }): void {
    const after = this.#after;
    const isSame = after !== null && after.epoch !== "" && after.epoch === answer.epoch;
    if (isSame && answer.seq > after.seq && !answer.recovered && !this.#isWhole) {
      this.#record = withGap(this.#record, after.seq);
    }
    this.#after = null;
    const joined = this.#join?.joined;
    if (joined) {
      this.#record = settle(this.#record, joined.status, joined.seq);
    }
    if (answer.epoch === this.#cursor.epoch && answer.seq > this.#cursor.seq) {
      this.#cursor = { ...this.#cursor, seq: answer.seq };
    }
    this.#join = null;
    this.#enter("yes");
    for (const follower of [...this.#followers]) {
      attempt(() => follower.settled?.());
    }
  }

  refuse(code: string, message: string): void {
    this.#join = null;
    this.#hears = false;
    this.#enter("refused", { code, message });
    this.fail(new JobRefused(this.jobId, code, message));
  }

  /** The connection is gone, and every join with it. */
  lose(): void {
    this.#join = null;
    this.#hears = false;
    this.#enter("no");
  }

  /** Nobody follows it any more: whoever does next begins anew. */
  forget(): void {
    this.#record = emptyRecord();
    this.#cursor = { epoch: "", seq: 0 };
    this.#after = null;
    this.lose();
  }

  fail(error: JobcastError): void {
    for (const follower of [...this.#followers]) {
      attempt(() => follower.failed?.(error));
    }
  }

  /** Tells the subscribers that there is another snapshot. */
  readonly tell = (): void => this.#listeners.tell();

  /** Lets go of everybody. */
  clear(): void {
    this.#listeners.clear();
    this.#followers.clear();
  }

  #enlist(enlist: () => () => void): () => void {
    if (this.#host.connectionState === "closed") {
      return () => {};
    }
    let delist: (() => void) | null = enlist();
    this.#host.followed(this);
    return () => {
      if (delist) {
        delist();
        delist = null;
        if (!this.isFollowed) {
          this.#host.left(this);
        }
      }
    };
  }

  #catchUp(follower: Follower): void {
    const problem = this.#problem();
    if (problem) {
      attempt(() => follower.failed?.(problem));
    } else if (this.#joined === "yes") {
      attempt(() => follower.settled?.());
    }
  }

  #problem(): JobcastError | null {
    const refusal = this.#refusal;
    return refusal ? new JobRefused(this.jobId, refusal.code, refusal.message) : this.#host.problem;
  }

  #enter(joined: Joined, refusal: JobState["refusal"] = null): void {
    this.#joined = joined;
    this.#refusal = refusal;
    this.#shown = null;
    this.#change();
  }

  #change(): void {
    this.#snapshot = null;
    if (this.#shown === null) {
      this.#host.changed(this);
    }
  }
}

/** The state of a job of which nothing is known. */
export function blankState(jobId: string): JobState {
  return stateOf(jobId, emptyRecord(), { joined: "no", refusal: null, connection: "idle" });
}

function stateOf(
  jobId: string,
  record: JobRecord,
  followed: Pick<JobState, "joined" | "refusal" | "connection">,
): JobState {
  const { progress, logs, history } = record;
  return {
    jobId,
    ...followed,
    status: record.status,
    task: record.task,
    attempt: record.attempt,
    run: record.run,
    percentage: progress?.percentage ?? null,
    message: progress?.message ?? null,
    stage: progress?.stage ?? null,
    current: progress?.current ?? null,
    total: progress?.total ?? null,
    rate: progress?.rate ?? null,
    eta: etaOf(record),
    retry: record.retry,
    // Cut out when somebody looks: most events are followed by another before anybody does.
    get logs() {
      return logs.items;
    },
    droppedLogs: logs.dropped,
    get history() {
      return history.items;
    },
    gaps: record.gaps,
    result: record.result,
    error: record.error,
    queuedAt: record.queuedAt,
    startedAt: record.startedAt,
    endedAt: record.endedAt,
    updatedAt: record.updatedAt,
  };
}

/** The progress said how long it takes; whatever came later, a log for one, takes its time off. */
function etaOf({ progress, updatedAt, endedAt }: JobRecord): number | null {
  if (progress?.eta === undefined || updatedAt === null || endedAt !== null) {
    return null;
  }
  const since = (Date.parse(updatedAt) - Date.parse(progress.timestamp)) / 1000;
  return Math.max(0, progress.eta - Math.max(0, since));
}
