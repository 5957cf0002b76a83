/** Validation of messages. It happens once, here, on arrival; all other code trusts the types. */

import { InvalidMessage } from "./errors.js";
import { MAX_TAGS } from "./info.js";
import {
  isFeed,
  isJobId,
  JOB_EVENTS,
  type JobEvent,
  type JobEventName,
  type JobGap,
  type Messages,
} from "./protocol.js";

type Validator = (value: unknown) => boolean;
type Shape = Readonly<Record<string, Validator>>;

const TOKEN_MAX_LENGTH = 8192;
const TIME =
  /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])(:[0-5]\d){2}(\.\d+)?(Z|\+00:00)$/;

const text: Validator = (value) => typeof value === "string";
const time: Validator = (value) => typeof value === "string" && TIME.test(value);
const flag: Validator = (value) => typeof value === "boolean";
const number: Validator = (value) => typeof value === "number" && Number.isFinite(value);
const epoch: Validator = (value) => typeof value === "string" && value.length <= 64;
const token: Validator = (value) =>
  typeof value === "string" && value.length > 0 && value.length <= TOKEN_MAX_LENGTH;
const is =
  (wanted: unknown): Validator =>
  (value) =>
    value === wanted;
/** A value of an open list. */
const openValue: Validator = (value) => typeof value === "string" && /^.{1,64}$/su.test(value);
// These states come from other events.
const NOT_RUNNING: readonly unknown[] = ["pending", "complete", "error", "cancelled"];
const runStatus: Validator = (value) => openValue(value) && !NOT_RUNNING.includes(value);
const integer =
  (least: number): Validator =>
  (value) =>
    Number.isSafeInteger(value) && (value as number) >= least;
const range =
  (least: number, most = Number.POSITIVE_INFINITY): Validator =>
  (value) =>
    number(value) && (value as number) >= least && (value as number) <= most;
const optional =
  (check: Validator): Validator =>
  (value) =>
    value === undefined || check(value);
const nullable =
  (check: Validator): Validator =>
  (value) =>
    value === null || check(value);
const arrayOf =
  (check: Validator): Validator =>
  (value) =>
    Array.isArray(value) && value.every(check);
const object =
  (shape: Shape): Validator =>
  (value) =>
    isObject(value) && invalidField(shape, value) === undefined;

/** The number of jobs that a client may request of a feed at once. */
export const MAX_FEED_LIMIT = 10_000;
/** The number of characters of the message of a request to cancel a job. */
export const MAX_CANCEL_MESSAGE = 1000;
/** The number of values that a filter may have as `status`. */
export const MAX_FILTER_STATUSES = 16;

const TITLE_MAX_LENGTH = 256;
/** Characters are code points, as in JSON Schema. */
const title: Validator = (value) =>
  typeof value === "string" && value !== "" && [...value].length <= TITLE_MAX_LENGTH;
const cancelMessage: Validator = (value) =>
  typeof value === "string" && [...value].length <= MAX_CANCEL_MESSAGE;
const tag: Validator = (value) => typeof value === "string" && /^\P{Cc}{1,128}$/u.test(value);
const tags: Validator = (value) =>
  Array.isArray(value) && value.length <= MAX_TAGS && value.every(tag);
const titleAndTags: Shape = { title: optional(title), tags: optional(tags) };
const info: Shape = {
  ...titleAndTags,
  task: optional(text),
  queue: optional(text),
  worker: optional(text),
  parent: optional(isJobId),
  created_at: optional(time),
  cancellable: optional(flag),
  terminates: optional(flag),
};

const cursor: Shape = { epoch, seq: integer(0) };
const eventFields: Shape = { job_id: isJobId, seq: integer(1), timestamp: time };
const record: Shape = { job_id: isJobId, ...cursor, status: openValue };
const filterText: Validator = (value) => typeof value === "string" && /^.{1,256}$/su.test(value);
const feedCursor = filterText;
const feedLimit: Validator = (value) => integer(1)(value) && (value as number) <= MAX_FEED_LIMIT;
const statuses: Validator = (value) =>
  arrayOf(openValue)(value) && range(1, MAX_FILTER_STATUSES)((value as unknown[]).length);
const filter: Shape = {
  status: optional(statuses),
  tag: optional(tag),
  task: optional(filterText),
  owner: optional(filterText),
  since: optional(time),
};
const summary: Shape = {
  ...record,
  ...info,
  created_at: time,
  owner: optional(text),
  started_at: optional(time),
  ended_at: optional(time),
  attempt: optional(integer(1)),
  percentage: optional(nullable(range(0, 100))),
  message: optional(text),
  reason: optional(openValue),
};
const refusal: Shape = {
  ok: is(false),
  code: text,
  message: text,
  retry_after: optional(range(0)),
};

const SHAPES: Readonly<Record<keyof Messages, Shape>> = {
  job_status: {
    ...eventFields,
    ...info,
    status: runStatus,
    attempt: optional(integer(1)),
    run: optional(integer(1)),
    retry_at: optional(time),
    error: optional(text),
    message: optional(text),
    by: optional(text),
  },
  job_info: { ...eventFields, ...titleAndTags },
  job_progress: {
    ...eventFields,
    percentage: nullable(range(0, 100)),
    message: optional(text),
    current: optional(number),
    total: optional(number),
    stage: optional(text),
    rate: optional(range(0)),
    eta: optional(range(0)),
  },
  job_log: { ...eventFields, level: openValue, message: text, attempt: optional(integer(1)) },
  job_complete: { ...eventFields, result: (value) => value !== undefined },
  job_error: { ...eventFields, error: text, message: text, reason: openValue, by: optional(text) },
  hello: { protocol: integer(1), server: text, features: arrayOf(openValue) },
  joined: { ...record, ...info, owner: optional(text), complete_from: optional(integer(2)) },
  job_gap: { job_id: isJobId, after: integer(0), before: integer(2) },
  left: { job_id: isJobId, code: text, message: text },
  feed_snapshot: {
    feed: isFeed,
    jobs: arrayOf(object(summary)),
    reset: optional(flag),
    last: optional(flag),
    cursor: optional(feedCursor),
  },
  feed_job: { feed: isFeed, ...summary },
  feed_gone: { feed: isFeed, job_id: isJobId },
  feed_left: { feed: isFeed, code: text, message: text },
  token_expiring: { expires_at: time },
  closing: { code: text, message: text },
  draining: { closes_in: range(0) },
  connect: { token },
  connect_error: { message: text, data: object({ code: text, message: optional(text) }) },
  join_job: { job_id: isJobId, after: optional(object(cursor)) },
  "join_job.ack": { ok: is(true), ...record, recovered: flag },
  leave_job: { job_id: isJobId },
  "leave_job.ack": { ok: is(true), job_id: isJobId },
  cancel_job: { job_id: isJobId, message: optional(cancelMessage) },
  "cancel_job.ack": {
    ok: is(true),
    job_id: isJobId,
    outcome: openValue,
    terminates: optional(flag),
  },
  join_feed: {
    feed: isFeed,
    filter: optional(object(filter)),
    limit: optional(feedLimit),
    after: optional(feedCursor),
  },
  "join_feed.ack": { ok: is(true), feed: isFeed, total: integer(0) },
  leave_feed: { feed: isFeed },
  "leave_feed.ack": { ok: is(true), feed: isFeed },
  refresh_token: { token },
  "refresh_token.ack": { ok: is(true), expires_at: time },
};

/**
 * Validate a message. Unknown fields pass.
 *
 * @throws InvalidMessage that names the field.
 */
export function parse<N extends keyof Messages>(name: N, payload: unknown): Messages[N] {
  if (!isObject(payload)) {
    throw new InvalidMessage(`${name}: the payload is not an object`);
  }
  const refused = name.endsWith(".ack") && payload.ok === false;
  const field = invalidField(refused ? refusal : SHAPES[name], payload);
  if (field !== undefined) {
    throw new InvalidMessage(`${name}: the field ${field} is missing or invalid`);
  }
  return payload as unknown as Messages[N];
}

/**
 * Validate a job event and add its name as `type`.
 *
 * @throws InvalidMessage that names the field.
 */
export function parseEvent(name: JobEventName, payload: unknown): JobEvent {
  return { ...parse(name, payload), type: name } as JobEvent;
}

/**
 * Validate a `job_gap` and add its name as `type`.
 *
 * @throws InvalidMessage that names the field.
 */
export function parseGap(payload: unknown): JobGap {
  return { ...parse("job_gap", payload), type: "job_gap" };
}

export function isJobEventName(name: string): name is JobEventName {
  return (JOB_EVENTS as readonly string[]).includes(name);
}

export function isToken(value: unknown): value is string {
  return token(value);
}

export function isTime(value: unknown): value is string {
  return time(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalidField(shape: Shape, value: Record<string, unknown>): string | undefined {
  for (const field in shape) {
    if (!shape[field]?.(value[field])) {
      return field;
    }
  }
  return undefined;
}
