import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ConnectionRefused } from "../src/errors.js";
import { EventStreamParser } from "../src/http/eventStreamParser.js";
import { HttpJobClient } from "../src/http/httpJobClient.js";
import { type IssuedToken, requestIssuedToken } from "../src/http/tokenEndpoint.js";
import type { Follower, Job, JobState } from "../src/job.js";
import type { JobEvent, JobGap } from "../src/protocol.js";
import { StreamServer } from "./streamServer.js";
import { tokenOf } from "./tokens.js";
import { eventually, until } from "./waiting.js";

let server: StreamServer;
let stops: (() => void)[];

beforeEach(async () => {
  server = await StreamServer.start();
  stops = [];
});

afterEach(async () => {
  for (const stop of stops) {
    stop();
  }
  await server.stop();
});

/** Return a client whose tokens are `token-1`, `token-2`, ... */
function createClient(
  getToken = (count: number): string | null => `token-${count}`,
): HttpJobClient {
  let count = 0;
  const requestToken = async (): Promise<IssuedToken | null> => {
    count += 1;
    const token = getToken(count);
    return token === null ? null : { token, expiresAt: Number.POSITIVE_INFINITY };
  };
  return new HttpJobClient({ baseUrl: server.url, requestToken, logLimit: 100 });
}

/** Follow a job until the end of the test, and collect its events. */
function follow(job: Job, follower: Partial<Follower> = {}): (JobEvent | JobGap)[] {
  const events: (JobEvent | JobGap)[] = [];
  stops.push(job.subscribe(() => {}));
  stops.push(job.follow({ ...follower, onEvent: (event) => events.push(event) }));
  return events;
}

const issued = (sub: string): IssuedToken => ({
  token: tokenOf(sub),
  expiresAt: Number.POSITIVE_INFINITY,
});
const nextTick = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));
const joined = (state: JobState): boolean => state.joined === "yes";
const messages = (state: JobState): string[] => state.logs.map((line) => line.message);

test("the parser returns the same messages wherever the chunks end", () => {
  const text =
    'retry: 20\n\n:\n\nevent: joined\r\ndata: {"a":\r\ndata: 1}\nid: e:1\n\ndata:x\n\n\n';
  const expected = [
    { event: "joined", data: '{"a":\n1}' },
    { event: "", data: "x" },
  ];
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parser = new EventStreamParser();
    const found = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))];
    expect(found).toEqual(expected);
    expect(parser.retry).toBe(20);
  }
});

test("a job is followed from its history to its end with one request", async () => {
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_log", { level: "info", message: "first" });
  const job = createClient().job("a");
  const events = follow(job);
  await until(job, joined, "a join");
  server.publish("a", "job_progress", { percentage: 50 });
  await until(job, (state) => state.percentage === 50, "progress");
  server.publish("a", "job_complete", { result: 7 });
  const state = await until(job, ({ status }) => status === "complete", "the end");
  expect(state).toMatchObject({ result: 7, connection: "connected", percentage: 50 });
  server.cut({ orderly: true });
  expect(events.map(({ type }) => type)).toEqual([
    "job_status",
    "job_log",
    "job_progress",
    "job_complete",
  ]);
  expect(server.requests).toEqual([{ jobs: ["a"], after: null, token: "token-1" }]);
});

test.each([false, true])("a stream that ends (orderly: %s) is resumed", async (orderly) => {
  const job = createClient().job("a");
  const events = follow(job);
  server.publish("a", "job_log", { level: "info", message: "one" });
  await until(job, (state) => messages(state).length === 1, "a line");
  server.cut({ orderly });
  server.publish("a", "job_log", { level: "info", message: "two" });
  await until(job, (state) => messages(state).length === 2, "the missed line");
  expect(events).toHaveLength(2);
  expect(server.requests[1]).toEqual({ jobs: ["a"], after: "e1:1", token: "token-1" });
});

test("jobs that are followed together share a stream, and a later one joins it", async () => {
  const client = createClient();
  const [one, two, three] = ["a", "b", "c"].map((id) => client.job(id)) as [Job, Job, Job];
  server.publish("a", "job_log", { level: "info", message: "line" });
  const events = follow(one);
  follow(two);
  await until(one, joined, "a join");
  await until(two, joined, "a join");
  expect(server.requests.map(({ jobs }) => jobs)).toEqual([["a", "b"]]);
  follow(three);
  await until(three, joined, "a join");
  expect(server.requests[1]).toMatchObject({ jobs: ["a", "b", "c"], after: "e1:1,e1:0," });
  await eventually(() => server.openStreams === 1, "the end of the first stream");
  expect(events).toHaveLength(1);
});

test("many clients of a page take turns with four streams", async () => {
  // A client per token, as in a page whose elements have tokens of their own.
  const jobs = ["a", "b", "c", "d", "e", "f"].map((id) => createClient().job(id));
  for (const job of jobs) {
    follow(job);
  }
  let mostStreams = 0;
  await eventually(() => {
    mostStreams = Math.max(mostStreams, server.openStreams);
    return server.requests.length >= 4;
  }, "the first streams");
  for (const [index, job] of jobs.entries()) {
    server.publish(job.jobId, "job_log", { level: "info", message: "a line" });
    server.publish(job.jobId, "job_progress", { percentage: index });
  }
  const shown = (job: Job): boolean => job.state.percentage !== null;
  await eventually(() => {
    mostStreams = Math.max(mostStreams, server.openStreams);
    return jobs.every(shown);
  }, "the progress of all jobs");
  expect(mostStreams).toBe(4);
  expect(jobs.map(({ state }) => state.logs.length)).toEqual([1, 1, 1, 1, 1, 1]);
});

test("jobs are distributed to more streams if the server allows fewer per stream", async () => {
  server.refuse = ({ jobs }) =>
    jobs.length > 2 ? { status: 400, code: "too_many_jobs" } : undefined;
  const client = createClient();
  const jobs = ["a", "b", "c", "d", "e"].map((id) => client.job(id));
  for (const job of jobs) {
    follow(job);
  }
  for (const job of jobs) {
    await until(job, joined, "a join");
  }
  expect(server.openStreams).toBe(3);
});

test("jobs are distributed to more streams if the URL is too long for a proxy", async () => {
  server.refuse = ({ jobs }) =>
    jobs.length > 2 ? { status: 414, code: "", body: "<h1>URI Too Long</h1>" } : undefined;
  const client = createClient();
  const jobs = ["a", "b", "c", "d", "e"].map((id) => client.job(id));
  for (const job of jobs) {
    follow(job);
  }
  for (const job of jobs) {
    await until(job, joined, "a join");
  }
  expect(server.openStreams).toBe(3);
});

test("a stream that a proxy holds back is reported, and tried again", async () => {
  const report = vi.spyOn(console, "error").mockImplementation(() => {});
  stops.push(() => report.mockRestore());
  server.holdsBack = true;
  const job = createClient().job("a");
  follow(job);
  await eventually(() => server.openStreams === 1, "a stream");
  expect(job.state.connection).toBe("connecting");
  await until(job, (state) => state.connection === "reconnecting", "a report");
  expect(String(report.mock.lastCall?.[0])).toMatch(/proxy holds back/);
  server.holdsBack = false;
  await until(job, joined, "a join");
});

test("a client whose last follower leaves has no stream", async () => {
  const job = createClient().job("a");
  const stop = job.subscribe(() => {});
  await until(job, joined, "a join");
  stop();
  await eventually(() => server.openStreams === 0, "the end of the stream");
  expect(job.state).toMatchObject({ joined: "no", updatedAt: null });
});

test("an end within the history that another run follows is not the end", async () => {
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_error", { error: "E", message: "lost", reason: "worker_lost" });
  server.publish("a", "job_status", { status: "started", run: 2 });
  const job = createClient().job("a");
  const shown: string[] = [];
  stops.push(job.subscribe(() => shown.push(job.getSnapshot().status)));
  await until(job, joined, "a join");
  server.publish("a", "job_complete", { result: null });
  await until(job, ({ status }) => status === "complete", "the end");
  expect(shown).not.toContain("error");
});

test("a replay ends although the server no longer stores its last event", async () => {
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_log", { level: "info", message: "trimmed" });
  server.trim("a");
  const job = createClient().job("a");
  follow(job);
  expect(await until(job, joined, "a join")).toMatchObject({ status: "started" });
});

test("a job that does not exist is refused, and reconnect asks again", async () => {
  server.refuse = () => ({ status: 404, code: "job_not_found" });
  const client = createClient();
  const job = client.job("a");
  const errors: string[] = [];
  follow(job, { onError: ({ code }) => errors.push(code) });
  const { refusal } = await until(job, (state) => state.joined === "refused", "a refusal");
  expect(refusal).toEqual({ code: "job_not_found", message: "refused" });
  expect(errors).toEqual(["job_not_found"]);
  server.refuse = () => undefined;
  client.reconnect();
  await until(job, joined, "a join");
});

test("left refuses one of several jobs, and the others go on", async () => {
  const client = createClient();
  const [one, two] = ["a", "b"].map((id) => client.job(id)) as [Job, Job];
  follow(one);
  follow(two);
  await until(one, joined, "a join");
  await until(two, joined, "a join");
  server.send("left", { job_id: "a", code: "job_not_found", message: "another owner" });
  await until(one, (state) => state.joined === "refused", "a refusal");
  server.publish("b", "job_progress", { percentage: 5 });
  await until(two, (state) => state.percentage === 5, "progress");
  expect(server.requests).toHaveLength(1);
});

test("left with a temporary reason joins the job again", async () => {
  const job = createClient().job("a");
  follow(job);
  await until(job, joined, "a join");
  server.send("left", { job_id: "a", code: "unavailable", message: "later" });
  await eventually(() => server.requests.length === 2, "another request");
  await until(job, joined, "another join");
});

test("a refused token is replaced once", async () => {
  server.refuse = ({ token }) =>
    token === "token-1" ? { status: 401, code: "token_expired" } : undefined;
  const job = createClient().job("a");
  follow(job);
  await until(job, joined, "a join");
  expect(server.requests.map(({ token }) => token)).toEqual(["token-1", "token-2"]);
});

test("a second refusal of the token refuses the job", async () => {
  server.refuse = () => ({ status: 401, code: "token_signature" });
  const job = createClient().job("a");
  follow(job);
  const { refusal } = await until(job, (state) => state.joined === "refused", "a refusal");
  expect(refusal?.code).toBe("token_signature");
  expect(server.requests).toHaveLength(2);
});

test("without a signed-in user the job is refused, and no request is sent", async () => {
  const job = createClient(() => null).job("a");
  follow(job);
  const { refusal } = await until(job, (state) => state.joined === "refused", "a refusal");
  expect(refusal?.code).toBe("token_missing");
  expect(server.requests).toEqual([]);
});

test("a token that expires soon is replaced without losing an event", async () => {
  const job = createClient().job("a");
  const events = follow(job);
  server.publish("a", "job_log", { level: "info", message: "one" });
  await until(job, (state) => messages(state).length === 1, "a line");
  server.send("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
  await eventually(() => server.requests.length === 2, "another stream");
  server.publish("a", "job_log", { level: "info", message: "two" });
  await until(job, (state) => messages(state).length === 2, "another line");
  expect(events).toHaveLength(2);
  expect(server.requests[1]).toEqual({ jobs: ["a"], after: "e1:1", token: "token-2" });
});

test("a token of another user starts without the lines of the previous one", async () => {
  const job = createClient((count) => tokenOf(count === 1 ? "ada" : "bob")).job("a");
  follow(job);
  server.publish("a", "job_log", { level: "info", message: "of ada" });
  await until(job, (state) => messages(state).length === 1, "a line");
  server.refuse = () => ({ status: 404, code: "job_not_found" });
  server.send("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
  const refused = await until(job, (state) => state.joined === "refused", "a refusal");
  expect(messages(refused)).toEqual([]);
});

test("a token that was requested before reconnect() is not used after it", async () => {
  let releaseAda = (_: IssuedToken): void => {};
  const tokens = [
    new Promise<IssuedToken>((resolve) => {
      releaseAda = resolve;
    }),
    Promise.resolve(issued("bob")),
  ];
  let calls = 0;
  const client = new HttpJobClient({
    baseUrl: server.url,
    requestToken: () => tokens[calls++] ?? Promise.resolve(issued("carol")),
    logLimit: 100,
  });
  const job = client.job("a");
  follow(job);
  await eventually(() => calls === 1, "a request for a token");
  client.reconnect();
  await until(job, joined, "a join");
  releaseAda(issued("ada"));
  await nextTick();
  server.cut();
  await eventually(() => server.requests.length === 2, "another stream");
  expect(server.requests.map(({ token }) => token)).toEqual([tokenOf("bob"), tokenOf("bob")]);
});

test("a cancellation whose token is discarded waits for the next token", async () => {
  const releases: ((token: IssuedToken) => void)[] = [];
  const client = new HttpJobClient({
    baseUrl: server.url,
    requestToken: () => new Promise((resolve) => releases.push(resolve)),
    logLimit: 100,
  });
  const cancelled = client.cancel("a");
  await eventually(() => releases.length === 1, "a request for a token");
  client.reconnect();
  releases[0]?.(issued("ada"));
  await eventually(() => releases.length === 2, "another request for a token");
  releases[1]?.(issued("bob"));
  await cancelled;
  expect(server.cancelRequests.map(({ token }) => token)).toEqual([tokenOf("bob")]);
});

test("requests that wait for a token at the same time share it", async () => {
  const releases: ((token: IssuedToken) => void)[] = [];
  const client = new HttpJobClient({
    baseUrl: server.url,
    requestToken: () => new Promise((resolve) => releases.push(resolve)),
    logLimit: 100,
  });
  const cancellations = [client.cancel("a"), client.cancel("b")];
  await eventually(() => releases.length > 0, "a request for a token");
  releases[0]?.(issued("ada"));
  await Promise.all(cancellations);
  expect(releases).toHaveLength(1);
});

test("a token of another user ends all streams of the previous one at once", async () => {
  server.refuse = ({ jobs }) =>
    jobs.length > 1 ? { status: 400, code: "too_many_jobs" } : undefined;
  let user = "ada";
  const client = createClient(() => tokenOf(user));
  const jobs = ["a", "b"].map((id) => client.job(id)) as [Job, Job];
  for (const job of jobs) {
    follow(job);
  }
  for (const job of jobs) {
    await until(job, joined, "a join");
  }
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }); // no other stream is opened
  stops.push(() => vi.useRealTimers());
  user = "bob";
  client.tokens?.discard();
  expect(await client.cancel("c")).toMatchObject({ outcome: "requested" });
  server.publish("b", "job_log", { level: "info", message: "of ada" });
  while (server.openStreams > 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(jobs.map(({ state }) => messages(state))).toEqual([[], []]);
});

test("a token that cannot be replaced stays in use until the stream ends", async () => {
  const job = createClient(() => "the same").job("a");
  follow(job);
  await until(job, joined, "a join");
  server.send("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
  server.publish("a", "job_progress", { percentage: 1 });
  await until(job, (state) => state.percentage === 1, "progress");
  expect(server.requests).toHaveLength(1);
});

test("a server that is unavailable is asked again", async () => {
  server.refuse = () => ({ status: 503, code: "unavailable", headers: { "Retry-After": "0" } });
  const job = createClient().job("a");
  follow(job);
  await until(job, (state) => state.connection === "reconnecting", "a refusal");
  server.refuse = () => undefined;
  expect(await until(job, joined, "a join")).toMatchObject({ connection: "connected" });
});

test("a page of an application at the server's URL is a refusal that names base-url", async () => {
  server.refuse = () => ({ status: 200, code: "", body: "<p>Not found</p>" });
  const job = createClient().job("a");
  follow(job);
  const { refusal } = await until(job, (state) => state.joined === "refused", "a refusal");
  expect(refusal?.message).toMatch(/no jobcast server at .*check the base-url attribute/);
});

/** Hide the server's answers as a browser does, except for those to requests without a token. */
function hideAnswers(status: number): void {
  const readAnswer = fetch;
  server.refuse = () => ({ status, code: "forbidden" });
  vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
    const response = await readAnswer(url, init);
    if (init.credentials !== "omit") {
      throw new TypeError("Failed to fetch");
    }
    return response;
  });
  stops.push(() => vi.unstubAllGlobals());
}

test("a page whose origin the server does not accept is refused", async () => {
  hideAnswers(403);
  const client = createClient();
  const job = client.job("a");
  follow(job);
  const { refusal } = await until(job, (state) => state.joined === "refused", "a refusal");
  expect(refusal?.code).toBe("forbidden");
  expect(refusal?.message).toContain("JOBCAST_CORS_ORIGINS");
  const refused = { name: "CancelRefused", code: "forbidden" };
  await expect(client.cancel("a")).rejects.toMatchObject(refused);
});

test("a page that cannot read the server's answers reconnects if it is not refused", async () => {
  hideAnswers(401);
  const client = createClient();
  const job = client.job("a");
  follow(job);
  await eventually(() => server.requests.length > 3, "more attempts");
  expect(job.isRefused).toBe(false);
});

test("an invalid job id is refused without a request", () => {
  const job = createClient().job("no job");
  follow(job);
  expect(job.state.refusal?.code).toBe("invalid_request");
});

test.each([
  ["a time", { token: "t", expires_at: "2030-01-01T00:00:00Z" }, Date.UTC(2030, 0, 1)],
  ["seconds", { token: "t", expires_at: 1_893_456_000 }, 1_893_456_000_000],
  ["nothing", { token: "t" }, Number.POSITIVE_INFINITY],
])("the token endpoint names the expiry as %s", async (_, answer, expiresAt) => {
  const issued = await ask(200, { ...answer, url: "https://jobs.example.com" });
  expect(issued).toEqual({ token: "t", expiresAt, serverUrl: "https://jobs.example.com" });
});

test.each([401, 403, 302])(
  "the status %i of the token endpoint means: signed out",
  async (code) => {
    expect(await ask(code, {})).toBeNull();
  },
);

test.each([
  ["Django", 403, "<h1>Forbidden</h1><p>CSRF verification failed. Request aborted.</p>"],
  ["Django REST framework", 403, { detail: "CSRF Failed: Origin checking failed" }],
  ["Flask-WTF", 400, "<p>The CSRF token is missing.</p>"],
])("the protection of %s against cross-site requests is a refusal", async (_, code, answer) => {
  await expect(ask(code, answer)).rejects.toMatchObject({
    code: "forbidden",
    message: expect.stringContaining("CSRF_TRUSTED_ORIGINS"),
  });
});

test("a login form with a CSRF token means: signed out", async () => {
  expect(await ask(403, '<input name="csrfmiddlewaretoken" value="x">')).toBeNull();
});

test("a refusal of the page by its application refuses jobs and requests to cancel them", async () => {
  const refusal = new ConnectionRefused("forbidden", "not this origin");
  const client = createClient(() => {
    throw refusal;
  });
  const job = client.job("a");
  follow(job);
  const state = await until(job, ({ joined }) => joined === "refused", "a refusal");
  expect(state.refusal).toMatchObject({ code: "forbidden", message: "not this origin" });
  await expect(client.cancel("a")).rejects.toMatchObject({
    name: "CancelRefused",
    code: "forbidden",
    message: "not this origin",
  });
});

test("another status of the token endpoint, and an answer without a token, are errors", async () => {
  await expect(ask(500, {})).rejects.toThrow("HTTP status 500");
  await expect(ask(200, { token: 5 })).rejects.toThrow("field token");
});

/** Request a token from an endpoint with this answer. */
async function ask(status: number, answer: unknown): Promise<IssuedToken | null> {
  const endpoint = createServer((request, response) => {
    const isExpected = request.method === "POST" && request.headers["x-csrftoken"] === "secret";
    response.writeHead(isExpected ? status : 418, { Location: "/login" });
    response.end(typeof answer === "string" ? answer : JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => endpoint.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/token`;
  const csrf = { header: "X-CSRFToken", token: "secret" };
  try {
    return await requestIssuedToken({ url, csrf }, new AbortController().signal);
  } finally {
    endpoint.closeAllConnections();
    endpoint.close();
  }
}

const ACCEPTED = { ok: true, job_id: "a", outcome: "requested" };

test("a request to cancel a job is repeated after temporary failures", async () => {
  const problems = [503, 429, 502].map((status) => ({ status, code: "unavailable" }));
  server.cancel = () => problems.shift() ?? ACCEPTED;
  const result = await createClient().cancel("a");
  expect(result).toEqual({ outcome: "requested", terminates: false });
  expect(server.cancelRequests).toHaveLength(4);
});

test("a request to cancel a job is not repeated for another user", async () => {
  let user = "ada";
  const client = createClient(() => tokenOf(user));
  server.cancel = () => {
    user = "bob";
    client.reconnect();
    return { status: 503, code: "unavailable", headers: { "Retry-After": "0" } };
  };
  const refused = { name: "CancelRefused", code: "token_subject" };
  await expect(client.cancel("a")).rejects.toMatchObject(refused);
  expect(server.cancelRequests.map(({ token }) => token)).toEqual([tokenOf("ada")]);
});

test("a request to cancel a job replaces a refused token once", async () => {
  const tokens = () => server.cancelRequests.map(({ token }) => token);
  server.cancel = ({ token }) =>
    token === "token-2" ? ACCEPTED : { status: 401, code: "token_expired" };
  expect(await createClient().cancel("a")).toMatchObject({ outcome: "requested" });
  expect(tokens()).toEqual(["token-1", "token-2"]);
  server.cancel = () => ({ status: 401, code: "token_revoked" });
  const refused = { name: "CancelRefused", code: "token_revoked" };
  await expect(createClient().cancel("a")).rejects.toMatchObject(refused);
  expect(tokens()).toEqual(["token-1", "token-2", "token-1", "token-2"]);
});

test.each([
  [{ status: 409, code: "not_cancellable", detail: "no" }, "not_cancellable"],
  [{ status: 404, code: "job_not_found", detail: "no" }, "job_not_found"],
  [{ status: 404, code: "", body: "<html>" }, "not_available"],
  [{ done: true }, "not_available"], // another application answers
])("a request to cancel a job that gets the answer %j fails with %s", async (answer, code) => {
  server.cancel = () => answer;
  const refused = { name: "CancelRefused", code };
  await expect(createClient().cancel("a")).rejects.toMatchObject(refused);
  expect(server.cancelRequests).toHaveLength(1);
});

test("a request to cancel a job fails if no user is signed in", async () => {
  const client = createClient(() => null);
  await expect(client.cancel("a")).rejects.toMatchObject({ code: "token_missing" });
  expect(server.cancelRequests).toEqual([]);
});
