/** The JSON Schema, the examples and the TypeScript types of the protocol agree. */

import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { describe, expect, expectTypeOf, test } from "vitest";
import { isJobEventName, parse, parseEvent } from "../src/parse.js";
import {
  isJobId,
  type JOB_EVENTS,
  LEVELS,
  type Messages,
  REASONS,
  RUN_STATUSES,
  STATES,
} from "../src/protocol.js";
import { type Example, examples, readJson } from "./examples.js";
import type * as schemaTypes from "./generated/schema.js";

interface Schema {
  readonly $id: string;
  readonly anyOf: readonly { readonly $ref: string }[];
  readonly $defs: Record<string, { examples?: string[] }>;
}

const schema = readJson<Schema>("events.schema.json");
// strictTypes and strictRequired reject "examples" and "description" next to "$ref".
const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false });
formats.default(ajv);
ajv.addSchema(schema);
const messages = schema.anyOf.map(({ $ref }) => $ref.split("/").at(-1) as keyof Messages);

function matchesSchema({ message, payload }: Example): boolean {
  return ajv.validate({ $ref: `${schema.$id}#/$defs/${message}` }, payload) as boolean;
}

describe("a valid example", () => {
  test.each(examples("valid"))("$name is accepted", (example) => {
    expect(matchesSchema(example)).toBe(true);
    expect(parse(example.message as keyof Messages, example.payload)).toEqual(example.payload);
  });
});

describe("an invalid example", () => {
  test.each(examples("invalid"))("$name is rejected", (example) => {
    expect(matchesSchema(example)).toBe(false);
    expect(() => parse(example.message as keyof Messages, example.payload)).toThrow(
      expect.objectContaining({
        name: "InvalidMessage",
        message: expect.stringContaining(example.message),
      }),
    );
  });
});

describe("an example of a later server", () => {
  const [known, unknown] = [true, false].map((isKnown) =>
    examples("future").filter(
      ({ message }) => messages.some((name) => name === message) === isKnown,
    ),
  );

  test.each(known ?? [])("$name is accepted if its message is known", (example) => {
    expect(matchesSchema(example)).toBe(true);
    expect(parse(example.message as keyof Messages, example.payload)).toEqual(example.payload);
  });

  test.each(unknown ?? [])("$name is ignored if its message is unknown", ({ message }) => {
    expect(isJobEventName(message)).toBe(false);
  });

  test("exists for each kind", () => {
    expect(known?.length).toBeGreaterThan(0);
    expect(unknown?.length).toBeGreaterThan(0);
  });
});

test("each message has valid and invalid examples", () => {
  for (const folder of ["valid", "invalid"] as const) {
    const found = new Set(examples(folder).map(({ message }) => message));
    expect([...found].sort()).toEqual([...messages].sort());
  }
});

test("the known values match the schema", () => {
  expect(schema.$defs.runStatus?.examples).toEqual(RUN_STATUSES);
  expect(schema.$defs.state?.examples).toEqual(STATES);
  expect(schema.$defs.level?.examples).toEqual(LEVELS);
  expect(schema.$defs.reason?.examples).toEqual(REASONS);
});

test("the types match the schema", () => {
  // As properties, so that optionality counts too. The compiler checks this in `npm run check`.
  expectTypeOf<Plain<Messages>>().toEqualTypeOf<Plain<schemaTypes.SchemaMessages>>();
  expectTypeOf<(typeof JOB_EVENTS)[number]>().toExtend<keyof schemaTypes.SchemaMessages>();
});

/** Flattens interfaces and intersections. In the schema, open lists are strings. */
type Plain<T> = [string, Defined<T>] extends [T, string]
  ? string | Extract<T, undefined>
  : T extends object
    ? { [K in keyof T]: Plain<T[K]> }
    : T;
type Defined<T> = Exclude<T, undefined>;

test("the type of an event is its name, even if the payload has a field `type`", () => {
  const payload = {
    type: "an unknown field",
    job_id: "4f1c",
    seq: 1,
    timestamp: "2026-01-15T09:30:00Z",
    level: "info",
    message: "text",
  };
  expect(parseEvent("job_log", payload)).toEqual({ ...payload, type: "job_log" });
});

test.each([
  ["x".repeat(64), true],
  ["\u{1f40d}".repeat(64), true], // characters, not UTF-16 units
  ["a\nb", true],
  ["", false],
  ["x".repeat(65), false],
  ["\u{1f40d}".repeat(65), false],
])("a value of an open list has 1 to 64 characters: %j is valid: %j", (level, isValid) => {
  const event = { job_id: "4f1c", seq: 1, timestamp: "2026-01-15T09:30:00Z", level, message: "" };
  expect(matchesSchema({ name: "", message: "job_log", payload: event })).toBe(isValid);
  if (isValid) {
    expect(parse("job_log", event)).toEqual(event);
  } else {
    expect(() => parse("job_log", event)).toThrow("level");
  }
});

test.each(["", " ", "a b", "a\n", "é", "x".repeat(129), "{}", '"', "*", 7, null, undefined])(
  "%j is not a valid job id",
  (value) => {
    expect(isJobId(value)).toBe(false);
  },
);

test("Celery's ids and all allowed characters are valid job ids", () => {
  expect(isJobId("f1c0ffee-0000-4000-8000-000000000000")).toBe(true);
  expect(isJobId("azAZ09_.:@=+/~-")).toBe(true);
  expect(isJobId("x".repeat(128))).toBe(true);
});
