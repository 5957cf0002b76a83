/** The examples in protocol/. */

import { readdirSync, readFileSync } from "node:fs";
import { isJobEventName } from "../src/parse.js";

export interface Example {
  readonly name: string;
  readonly message: string;
  readonly payload: Record<string, unknown>;
}

const PROTOCOL = new URL("../../protocol/", import.meta.url);

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(new URL(path, PROTOCOL), "utf8")) as T;
}

export function examples(folder: "valid" | "invalid" | "future"): Example[] {
  return readdirSync(new URL(`examples/${folder}/`, PROTOCOL)).map((file) => ({
    ...readJson<Example>(`examples/${folder}/${file}`),
    name: file.replace(/\.json$/, ""),
  }));
}

/** Return a message that a later server may send. */
export function futureExample(name: string): Example {
  return { ...readJson<Example>(`examples/future/${name}.json`), name };
}

/** Return the known events of later servers, with unknown values and fields. */
export function futureEvents(): Example[] {
  return examples("future").filter(
    ({ message }) => isJobEventName(message) || message === "job_gap",
  );
}
