/** The JSON Schema, the examples and the TypeScript types of the protocol agree. */

import { readdirSync, readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { describe, expect, expectTypeOf, test } from "vitest";
import { parse, parseEvent } from "../src/parse.js";
import {
  isJobId,
  type JOB_EVENTS,
  LEVELS,
  type Level,
  type Messages,
  REASONS,
  type Reason,
  RUN_STATUSES,
  type RunStatus,
  STATES,
  type State,
} from "../src/protocol.js";
import type * as schemaTypes from "./generated/schema.js";

const PROTOCOL = new URL("../../protocol/", import.meta.url);

interface Example {
  readonly name: string;
  readonly message: keyof Messages;
  readonly payload: unknown;
}

interface Schema {
  readonly $id: string;
  readonly anyOf: readonly { readonly $ref: string }[];
  readonly $defs: Record<string, { enum?: string[] }>;
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(path, PROTOCOL), "utf8")) as T;
}

function examples(folder: "valid" | "invalid"): Example[] {
  return readdirSync(new URL(`examples/${folder}/`, PROTOCOL)).map((file) => ({
    ...readJson<Example>(`examples/${folder}/${file}`),
    name: file.replace(/\.json$/, ""),
  }));
}

const schema = readJson<Schema>("events.schema.json");
// strictTypes and strictRequired reject "examples" and "description" next to "$ref".
const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false });
formats.default(ajv);
ajv.addSchema(schema);

function matchesSchema({ message, payload }: Example): boolean {
  return ajv.validate({ $ref: `${schema.$id}#/$defs/${message}` }, payload) as boolean;
}

describe("a valid example", () => {
  test.each(examples("valid"))("$name is accepted", (example) => {
    expect(matchesSchema(example)).toBe(true);
    expect(parse(example.message, example.payload)).toEqual(example.payload);
  });
});

describe("an invalid example", () => {
  test.each(examples("invalid"))("$name is rejected", (example) => {
    expect(matchesSchema(example)).toBe(false);
    expect(() => parse(example.message, example.payload)).toThrow(
      expect.objectContaining({
        name: "InvalidMessage",
        message: expect.stringContaining(example.message),
      }),
    );
  });
});

test("each message has valid and invalid examples", () => {
  const messages = schema.anyOf.map(({ $ref }) => $ref.split("/").at(-1));
  for (const folder of ["valid", "invalid"] as const) {
    const found = new Set(examples(folder).map(({ message }) => message));
    expect([...found].sort()).toEqual([...messages].sort());
  }
});

test("the enumerations match the schema", () => {
  expect(schema.$defs.runStatus?.enum).toEqual(RUN_STATUSES);
  expect(schema.$defs.state?.enum).toEqual(STATES);
  expect(schema.$defs.level?.enum).toEqual(LEVELS);
  expect(schema.$defs.reason?.enum).toEqual(REASONS);
});

test("the types match the schema", () => {
  // As properties, so that optionality counts too. The compiler checks this in `npm run check`.
  expectTypeOf<Plain<Messages>>().toEqualTypeOf<Plain<schemaTypes.SchemaMessages>>();
  expectTypeOf<RunStatus>().toEqualTypeOf<schemaTypes.RunStatus>();
  expectTypeOf<State>().toEqualTypeOf<schemaTypes.State>();
  expectTypeOf<Level>().toEqualTypeOf<schemaTypes.Level>();
  expectTypeOf<Reason>().toEqualTypeOf<schemaTypes.Reason>();
  expectTypeOf<(typeof JOB_EVENTS)[number]>().toExtend<keyof schemaTypes.SchemaMessages>();
});

/** Flattens interfaces and intersections. */
type Plain<T> = T extends object ? { [K in keyof T]: Plain<T[K]> } : T;

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
