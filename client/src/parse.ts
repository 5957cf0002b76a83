/** Messages are validated here, once, at the edge. The types are trusted inside. */

import { InvalidMessage } from "./errors.js";
import {
  isJobId,
  JOB_EVENTS,
  type JobEvent,
  type JobEventName,
  LEVELS,
  type Messages,
  REASONS,
  RUN_STATUSES,
  STATES,
} from "./protocol.js";

type Check = (value: unknown) => boolean;
type Shape = Readonly<Record<string, Check>>;

const TOKEN_MAX_LENGTH = 8192;
const TIME =
  /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])(:[0-5]\d){2}(\.\d+)?(Z|\+00:00)$/;

const text: Check = (value) => typeof value === "string";
const time: Check = (value) => typeof value === "string" && TIME.test(value);
const flag: Check = (value) => typeof value === "boolean";
const number: Check = (value) => typeof value === "number" && Number.isFinite(value);
const epoch: Check = (value) => typeof value === "string" && value.length <= 64;
const token: Check = (value) =>
  typeof value === "string" && value.length > 0 && value.length <= TOKEN_MAX_LENGTH;
const is =
  (wanted: unknown): Check =>
  (value) =>
    value === wanted;
const oneOf =
  (values: readonly unknown[]): Check =>
  (value) =>
    values.includes(value);
const integer =
  (least: number): Check =>
  (value) =>
    Number.isSafeInteger(value) && (value as number) >= least;
const range =
  (least: number, most = Number.POSITIVE_INFINITY): Check =>
  (value) =>
    number(value) && (value as number) >= least && (value as number) <= most;
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);
const nullable =
  (check: Check): Check =>
  (value) =>
    value === null || check(value);
const shaped =
  (shape: Shape): Check =>
  (value) =>
    isObject(value) && flawOf(shape, value) === undefined;

const cursor: Shape = { epoch, seq: integer(0) };
const stamp: Shape = { job_id: isJobId, seq: integer(1), timestamp: time };
const joined: Shape = { job_id: isJobId, ...cursor, status: oneOf(STATES) };
const refusal: Shape = {
  ok: is(false),
  code: text,
  message: text,
  retry_after: optional(range(0)),
};

const SHAPES: Readonly<Record<keyof Messages, Shape>> = {
  job_status: {
    ...stamp,
    status: oneOf(RUN_STATUSES),
    task: optional(text),
    attempt: optional(integer(1)),
    run: optional(integer(1)),
    eta: optional(time),
    error: optional(text),
    message: optional(text),
  },
  job_progress: {
    ...stamp,
    percentage: nullable(range(0, 100)),
    message: nullable(text),
    current: optional(number),
    total: optional(number),
    stage: optional(text),
    rate: optional(range(0)),
    eta: optional(range(0)),
  },
  job_log: { ...stamp, level: oneOf(LEVELS), message: text },
  job_complete: { ...stamp, result: (value) => value !== undefined },
  job_error: { ...stamp, error: text, message: text, reason: oneOf(REASONS) },
  joined,
  left: { job_id: isJobId, code: text, message: text },
  token_expiring: { expires_at: time },
  closing: { code: text, message: text },
  draining: { closes_in: range(0) },
  connect: { token },
  connect_error: { message: text, data: shaped({ code: text, message: optional(text) }) },
  join_job: { job_id: isJobId, after: optional(nullable(shaped(cursor))) },
  "join_job.ack": { ok: is(true), ...joined, recovered: flag },
  leave_job: { job_id: isJobId },
  "leave_job.ack": { ok: is(true), job_id: isJobId },
  refresh_token: { token },
  "refresh_token.ack": { ok: is(true), expires_at: time },
};

/**
 * A message whose shape was checked. Fields that are not known are let through.
 *
 * @throws InvalidMessage that names the field.
 */
export function parse<N extends keyof Messages>(name: N, payload: unknown): Messages[N] {
  if (!isObject(payload)) {
    throw new InvalidMessage(`${name}: the payload is no object`);
  }
  const refused = name.endsWith(".ack") && payload.ok === false;
  const flaw = flawOf(refused ? refusal : SHAPES[name], payload);
  if (flaw !== undefined) {
    throw new InvalidMessage(`${name}: ${flaw} is missing or is not what it should be`);
  }
  return payload as unknown as Messages[N];
}

/** A job's event, with its name in it. */
export function parseEvent(name: JobEventName, payload: unknown): JobEvent {
  return { ...parse(name, payload), type: name } as JobEvent;
}

export function isJobEventName(name: string): name is JobEventName {
  return (JOB_EVENTS as readonly string[]).includes(name);
}

export function isToken(value: unknown): value is string {
  return token(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function flawOf(shape: Shape, value: Record<string, unknown>): string | undefined {
  for (const field in shape) {
    if (!shape[field]?.(value[field])) {
      return field;
    }
  }
  return undefined;
}
