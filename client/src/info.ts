/** The description of a job, merged from messages by the rules of the protocol. */

import type { InfoFields, JoinedMessage } from "./protocol.js";

/** The number of tags that a job may have. */
export const MAX_TAGS = 10;

/** What a job is. */
export interface JobInfo {
  /** The name of the Celery task. */
  readonly task: string | null;
  /** What the job is, for people. */
  readonly title: string | null;
  readonly tags: readonly string[];
  /** The queue that the job was sent to. */
  readonly queue: string | null;
  /** The worker that runs the job. */
  readonly worker: string | null;
  /** The id of the job that sent this one. */
  readonly parent: string | null;
  /** The subject that owns the job. */
  readonly owner: string | null;
  /** When the job was sent: RFC 3339, UTC. */
  readonly createdAt: string | null;
  /** Whether a request can cancel the job. */
  readonly cancellable: boolean;
  /** Whether a cancelled run is terminated if it does not end by itself. */
  readonly terminates: boolean;
}

export const NO_INFO: JobInfo = {
  task: null,
  title: null,
  tags: [],
  queue: null,
  worker: null,
  parent: null,
  owner: null,
  createdAt: null,
  cancellable: true,
  terminates: false,
};

/** Return the description in a `joined`, which is complete. */
export function infoOf(joined: JoinedMessage): JobInfo {
  return { ...mergeInfo(NO_INFO, joined), owner: joined.owner ?? null };
}

/** Return a description with the fields of a message. Tags are added; `createdAt` stays. */
export function mergeInfo(info: JobInfo, fields: InfoFields): JobInfo {
  return {
    task: fields.task ?? info.task,
    title: fields.title ?? info.title,
    tags: mergeTags(info.tags, fields.tags),
    queue: fields.queue ?? info.queue,
    worker: fields.worker ?? info.worker,
    parent: fields.parent ?? info.parent,
    owner: info.owner,
    createdAt: info.createdAt ?? fields.created_at ?? null,
    cancellable: fields.cancellable ?? info.cancellable,
    // It depends on the pool of the worker, and changes with it.
    terminates: fields.terminates ?? (fields.worker === undefined && info.terminates),
  };
}

/** Return the fields of a `joined` that contain a description. */
export function joinedFields({ createdAt, ...info }: JobInfo): Partial<JoinedMessage> {
  const known = Object.entries({ ...info, created_at: createdAt }).filter(
    ([, value]) => value !== null,
  );
  return Object.fromEntries(known);
}

/** Return the description at the start of another run after the end: its owner stays. */
export function infoOfNewRun({ owner }: JobInfo): JobInfo {
  return { ...NO_INFO, owner };
}

function mergeTags(tags: readonly string[], added: readonly string[] = []): readonly string[] {
  const isKnown = added.every((tag) => tags.includes(tag));
  return isKnown ? tags : [...new Set([...tags, ...added])].slice(0, MAX_TAGS);
}
