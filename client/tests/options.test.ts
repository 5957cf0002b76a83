/** `createJobClient` rejects invalid options at once and names them. */

import { expect, test } from "vitest";
import { createJobClient, type JobClientOptions } from "../src/index.js";

const getToken = (): string => "token";
const make = (options: unknown) => createJobClient(options as JobClientOptions);

test.each([
  [undefined, TypeError, "options"],
  [null, TypeError, "options"],
  ["https://jobs.example.com", TypeError, "options"],
  [{}, TypeError, "getToken"],
  [{ getToken: "token" }, TypeError, "getToken"],
  [{ getToken, url: 8000 }, TypeError, "url"],
  [{ getToken, url: null }, TypeError, "url"],
  [{ getToken, transports: "websocket" }, TypeError, "transports"],
  [{ getToken, transports: [] }, RangeError, "transports"],
  [{ getToken, transports: ["carrier"] }, RangeError, "transports"],
  [{ getToken, transports: ["websocket", "carrier"] }, RangeError, "transports"],
  [{ getToken, logLimit: "a" }, TypeError, "logLimit"],
  [{ getToken, logLimit: "10" }, TypeError, "logLimit"],
  [{ getToken, logLimit: Number.NaN }, RangeError, "logLimit"],
  [{ getToken, logLimit: -1 }, RangeError, "logLimit"],
  [{ getToken, logLimit: 1.5 }, RangeError, "logLimit"],
])("%o is rejected", (options, kind, name) => {
  expect(() => make(options)).toThrow(kind);
  expect(() => make(options)).toThrow(new RegExp(`^createJobClient: .*${name}`));
});

test.each([
  { getToken },
  { getToken: null },
  { getToken, url: undefined, transports: undefined, logLimit: undefined },
  { getToken, url: "https://jobs.example.com", transports: ["polling"], logLimit: 0 },
  { getToken, transports: ["websocket", "polling"], logLimit: Number.POSITIVE_INFINITY },
])("%o is accepted", (options) => {
  make(options).close();
});
