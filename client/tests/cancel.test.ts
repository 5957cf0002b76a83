/** Requests to cancel a job, against a simulated server. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { CANCEL_TIMEOUT } from "../src/cancelRequests.js";
import { CancelRefused, ConnectionRefused, createJobClient, type JobClient } from "../src/index.js";
import { TestServer } from "./server.js";
import { eventually, until } from "./waiting.js";

let server: TestServer;
let client: JobClient;

beforeEach(async () => {
  server = await TestServer.start();
  client = createJobClient({ url: server.url, getToken: () => "token" });
});

afterEach(async () => {
  client.close();
  await server.stop();
  vi.useRealTimers();
});

const requests = () => server.requestsNamed("cancel_job");
const failure = (promise: Promise<unknown>) => promise.catch((error: unknown) => error);

test("a request needs no follower, and returns the outcome", async () => {
  server.answer = (name) =>
    name === "cancel_job"
      ? { ok: true, job_id: "a", outcome: "requested", terminates: true }
      : undefined;
  const result = await client.cancel("a", { message: "wrong file" });
  expect(result).toEqual({ outcome: "requested", terminates: true });
  expect(requests()).toEqual([{ job_id: "a", message: "wrong file" }]);
  expect(server.requestsNamed("join_job")).toEqual([]);
});

test("an outcome of a later server is returned as it is", async () => {
  server.answer = (_, { job_id }) => ({ ok: true, job_id, outcome: "scheduled" });
  expect(await client.cancel("a")).toEqual({ outcome: "scheduled", terminates: false });
  expect(requests()).toEqual([{ job_id: "a" }]);
});

test.each(["job_not_found", "not_cancellable", "a_later_code"])(
  "a request that is refused with %s fails with the code",
  async (code) => {
    server.answer = () => ({ ok: false, code, message: "no" });
    const error = await failure(client.cancel("a"));
    expect(error).toBeInstanceOf(CancelRefused);
    expect(error).toMatchObject({ name: "CancelRefused", jobId: "a", code, message: "no" });
    expect(requests()).toHaveLength(1);
  },
);

test("a request that is refused temporarily is repeated", async () => {
  const refusals = ["rate_limited", "unavailable", "internal_error", "not_authenticated"];
  server.answer = (name) => {
    const code = name === "cancel_job" ? refusals.shift() : undefined;
    return code && { ok: false, code, message: "later" };
  };
  expect(await client.cancel("a")).toMatchObject({ outcome: "requested" });
  expect(requests()).toHaveLength(5);
});

test("a request without an answer is sent again on the next connection", async () => {
  server.answer = (name) => (name === "cancel_job" ? null : undefined);
  const result = client.cancel("a", { message: "wrong file" });
  await eventually(() => requests().length === 1, "the request");
  server.answer = () => undefined;
  server.drop();
  expect(await result).toMatchObject({ outcome: "requested" });
  expect(requests()).toEqual(Array(2).fill({ job_id: "a", message: "wrong file" }));
});

test("a request fails when the time for its answer is over, and is not sent later", async () => {
  await server.stop();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const error = failure(client.cancel("a"));
  await vi.advanceTimersByTimeAsync(CANCEL_TIMEOUT);
  expect(await error).toMatchObject({ name: "CancelRefused", code: "unavailable" });
  vi.useRealTimers();
  server = await TestServer.startAt(server.port);
  client.reconnect();
  await until(client.connection, ({ state }) => state === "connected", "the connection");
  await client.cancel("b");
  expect(requests()).toEqual([{ job_id: "b" }]);
});

test("a refused connection and a closed client fail the request", async () => {
  server.refuse = () =>
    Object.assign(new Error("no"), { data: { code: "token_invalid", message: "no" } });
  const error = await failure(client.cancel("a"));
  expect(error).toBeInstanceOf(ConnectionRefused);
  expect(error).toMatchObject({ code: "token_invalid" });
  expect(await failure(client.cancel("a"))).toMatchObject({ code: "token_invalid" });
  client.close();
  expect(await failure(client.cancel("a"))).toMatchObject({ code: "closed" });
});

test("a client that is closed meanwhile fails the request", async () => {
  server.answer = (name) => (name === "cancel_job" ? null : undefined);
  const error = failure(client.cancel("a"));
  await eventually(() => requests().length === 1, "the request");
  client.close();
  expect(await error).toMatchObject({ name: "ConnectionRefused", code: "closed" });
});

test("a request of one user is not sent as another one", async () => {
  server.answer = (name) => {
    if (name === "cancel_job") return { ok: false, code: "unavailable", message: "later" };
    return name === "refresh_token"
      ? { ok: false, code: "token_subject", message: "another user" }
      : undefined;
  };
  const error = failure(client.cancel("a"));
  await eventually(() => requests().length > 0, "the request");
  server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
  expect(await error).toMatchObject({ name: "ConnectionRefused", code: "token_subject" });
  const { length } = requests();
  await eventually(() => server.tokens.length === 2, "the next connection");
  server.answer = () => undefined;
  await client.cancel("b");
  expect(requests().slice(length)).toEqual([{ job_id: "b" }]);
});

test("invalid arguments fail the request at once", async () => {
  expect(await failure(client.cancel("a b"))).toMatchObject({ code: "invalid_request" });
  const message = 7 as unknown as string;
  expect(await failure(client.cancel("a", { message }))).toBeInstanceOf(TypeError);
  await client.cancel("a", { message: "\u{1f40d}".repeat(1001) });
  expect(requests()).toEqual([{ job_id: "a", message: "\u{1f40d}".repeat(1000) }]);
});

test("a follower sees the request and the end of the job", async () => {
  const job = client.job("a");
  const stop = job.subscribe(() => {});
  server.publish("a", "job_status", { status: "started", run: 1 });
  await until(job, ({ status }) => status === "started", "the start");
  server.publish("a", "job_status", { status: "cancelling", by: "ada", message: "wrong file" });
  const asked = await until(job, ({ status }) => status === "cancelling", "the request");
  expect(asked.cancellation).toEqual({ by: "ada", message: "wrong file", reason: null });
  const end = { error: "JobCancelled", message: "wrong file", reason: "cancelled", by: "ada" };
  server.publish("a", "job_error", end);
  const ended = await until(job, ({ endedAt }) => endedAt !== null, "the end");
  expect(ended).toMatchObject({ status: "cancelled", error: null });
  expect(ended.cancellation).toEqual({ by: "ada", message: "wrong file", reason: "cancelled" });
  await expect(client.result("a")).rejects.toMatchObject({
    name: "JobFailed",
    reason: "cancelled",
  });
  stop();
});
