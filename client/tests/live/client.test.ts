/** The client against a real jobcast server and a real Celery worker. */

import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  type ConnectionRefused,
  createJobClient,
  type FeedState,
  type JobClient,
  type JobClientOptions,
  type JobEvent,
  type JobFailed,
  type JobGap,
  type JobRefused,
} from "../../src/index.js";
import { eventually, until } from "../waiting.js";
import { Backend } from "./backend.js";

let backend: Backend;
const clients: JobClient[] = [];
const unhandled: unknown[] = [];
const recordUnhandled = (reason: unknown): void => void unhandled.push(reason);

beforeAll(async () => {
  process.on("unhandledRejection", recordUnhandled);
  backend = await Backend.start();
});

afterAll(async () => {
  await backend?.stop();
  process.off("unhandledRejection", recordUnhandled);
});

afterEach(async () => {
  for (const client of clients.splice(0)) {
    client.close();
  }
  expect(unhandled).toEqual([]);
});

function connect(options: Partial<JobClientOptions> = {}): JobClient {
  const client = createJobClient({
    url: backend.url,
    getToken: () => backend.token(),
    ...options,
  });
  clients.push(client);
  return client;
}

const newId = (): string => `job-${randomUUID()}`;
const everyJob = (): Promise<string> => backend.token("alice", { jobs: ["*"] });
const log = (message: string) => ({ level: "info", message });

/** Wait until the server has no connection, not even one that a client has given up. */
function noConnections(): Promise<unknown> {
  return eventually(async () => (await backend.connections()) === 0, "no connection");
}

/** Record the events that `follow` delivers. */
function record(client: JobClient, jobId: string) {
  const events: (JobEvent | JobGap)[] = [];
  const stop = client.follow(jobId, (event) => events.push(event));
  return {
    events,
    stop,
    get lines(): string[] {
      return events.flatMap((event) => (event.type === "job_log" ? [event.message] : []));
    },
  };
}

function expectInOrder(events: readonly (JobEvent | JobGap)[]): void {
  const seqs = events.map((event) => (event.type === "job_gap" ? event.before - 0.5 : event.seq));
  expect(seqs).toEqual([...new Set(seqs)].sort((one, other) => one - other));
}

describe("a job", () => {
  test("is followed from queued to complete", async () => {
    const client = connect();
    const gate = await backend.gate();
    const jobId = await backend.send("count", [10, gate]);
    const store = client.job(jobId);
    const recorded = record(client, jobId);
    const running = await until(
      store,
      (job) => job.status === "started" && job.logs.length === 6,
      "a job that waits half-way through",
    );
    expect(running).toMatchObject({
      jobId,
      joined: "yes",
      task: "tests.jobs.count",
      attempt: 1,
      run: 1,
      message: "counting",
      total: 10,
      connection: "connected",
      result: null,
      error: null,
      endedAt: null,
      droppedLogs: 0,
    });
    await backend.openGate(gate);
    expect(await client.result(jobId)).toEqual({ steps: 10 });
    const ended = await until(store, (job) => job.status === "complete", "the end");
    expect(ended).toMatchObject({ percentage: 100, current: 10, eta: null });
    expect(ended.logs.map((line) => line.message)).toEqual(
      Array.from({ length: 10 }, (_, step) => `step ${step}`),
    );
    expect(ended.history.map((change) => change.status)).toEqual(["queued", "started", "complete"]);
    const { queuedAt, startedAt, endedAt } = ended;
    const times = [queuedAt, startedAt, endedAt].map((time) => Date.parse(String(time)));
    expect(times).toEqual([...times].sort());
    expectInOrder(recorded.events);
  });

  test("is shown completely to a late follower", async () => {
    const jobId = await backend.send("count", [5]);
    await connect().result(jobId);
    const late = connect();
    const store = late.job(jobId);
    const statuses: string[] = [];
    const stop = store.subscribe(() => statuses.push(store.getSnapshot().status));
    const job = await until(store, (job) => job.joined === "yes", "a job that is joined");
    stop();
    expect(job).toMatchObject({ status: "complete", result: { steps: 5 } });
    expect(job.logs).toHaveLength(5);
    expect(statuses.filter((status) => status !== "pending")).toEqual(["complete"]);
  });

  test("with a long log has a gap for a late follower, who still sees how the job began", async () => {
    const jobId = newId();
    await backend.emit(jobId, "job_status", { status: "queued", task: "tests.jobs.count" });
    await backend.emit(jobId, "job_status", { status: "started", attempt: 1 });
    await backend.emit(jobId, "job_log", log("line {n}"), 2500);
    const client = connect({ getToken: everyJob, logLimit: 5000 });
    const recorded = record(client, jobId);
    const store = client.job(jobId);
    const job = await until(store, (job) => job.joined === "yes", "a job that is joined");
    expect(job).toMatchObject({ status: "started", task: "tests.jobs.count", attempt: 1 });
    expect(job.queuedAt).not.toBeNull();
    expect(job.startedAt).not.toBeNull();
    expect(job.logs.at(-1)).toMatchObject({ message: "line 2499" });
    expect(job.gaps).toMatchObject([{ after: 0, before: job.logs[0]?.seq }]);
    const types = recorded.events.slice(0, 4).map((event) => event.type);
    expect(types).toEqual(["job_status", "job_status", "job_gap", "job_log"]);
    expectInOrder(recorded.events);
  });

  test("is served by a server that says hello", async () => {
    const client = connect();
    const stop = client.job(newId()).subscribe(() => {});
    const { server, features } = await until(
      client.connection,
      ({ server }) => server !== null,
      "a hello",
    );
    expect(server).toMatch(/^jobcast\/\d/);
    expect(features).toEqual(expect.arrayContaining(["join_job", "leave_job", "refresh_token"]));
    stop();
  });

  test("that fails has its error", async () => {
    const client = connect();
    const jobId = await backend.send("fail", ["no such row"]);
    const failed = (await client.result(jobId).catch((error: unknown) => error)) as JobFailed;
    expect(failed).toMatchObject({
      name: "JobFailed",
      jobId,
      error: "LookupError",
      message: "no such row",
      reason: "failure",
    });
    const job = await until(client.job(jobId), (job) => job.status === "error", "an error");
    expect(job.error).toEqual({
      error: "LookupError",
      message: "no such row",
      reason: "failure",
    });
  });

  test("that is retried has its attempts in the history", async () => {
    const client = connect();
    const jobId = await backend.send("flaky");
    expect(await client.result(jobId)).toBe(2);
    const job = await until(client.job(jobId), (job) => job.status === "complete", "the end");
    expect(job.attempt).toBe(3);
    expect(job.retry).toBeNull();
    expect(job.history.map(({ status, attempt }) => [status, attempt])).toEqual([
      ["queued", null],
      ["started", 1],
      ["retrying", 2],
      ["started", 2],
      ["retrying", 3],
      ["started", 3],
      ["complete", null],
    ]);
    expect(job.history[2]).toMatchObject({ error: "ConnectionError", message: "try 1" });
  });

  test("that is revoked ends with the reason revoked", async () => {
    const client = connect();
    const jobId = await backend.send("tick", [await backend.gate()]);
    await until(client.job(jobId), (job) => job.logs.length > 0, "a job that runs");
    await backend.revoke(jobId);
    const failed = await client.result(jobId).catch((error: unknown) => error);
    expect(failed).toMatchObject({ name: "JobFailed", reason: "revoked" });
  });

  test("of another user, or with an invalid id, is refused", async () => {
    const client = connect();
    const jobId = await backend.send("count", [1], { owner: "bob" });
    for (const [id, code] of [
      [jobId, "job_not_found"],
      ["no id", "invalid_request"],
      ["", "invalid_request"],
    ] as const) {
      const job = await until(client.job(id), (job) => job.joined === "refused", "a refusal");
      expect(job.refusal?.code).toBe(code);
      const refused = (await client.result(id).catch((error: unknown) => error)) as JobRefused;
      expect(refused).toMatchObject({ name: "JobRefused", jobId: id, code });
    }
    expect(client.connection.getSnapshot().state).toBe("connected");
  });

  test("that exceeds the limit is joined when another one is left", async () => {
    const client = connect({ getToken: everyJob });
    const ids = Array.from({ length: 31 }, newId);
    const recorded = ids.map((id) => record(client, id));
    const last = client.job(String(ids[30]));
    const refused = await until(last, (job) => job.joined === "refused", "a refusal");
    expect(refused.refusal?.code).toBe("too_many_jobs");
    const joined = until(last, (job) => job.joined === "yes", "a join");
    recorded[3]?.stop();
    await joined;
  });
});

describe("a feed", () => {
  test("shows the jobs of its owner from queued to the end, and those of no one else", async () => {
    const sub = `owner-${randomUUID()}`;
    const client = connect({ getToken: () => backend.token(sub) });
    const gate = await backend.gate();
    const options = { owner: sub, title: "Report", tags: ["project:7"] };
    const first = await backend.send("count", [4, gate], options);
    await backend.send("count", [1], { owner: `${sub}-other` });
    const mine = client.feed("mine");
    const stop = mine.subscribe(() => {});
    const running = await until(mine, ({ jobs }) => jobs[0]?.percentage === 50, "half of the job");
    expect(running).toMatchObject({ status: "live", total: 1, hasMore: false, error: null });
    expect(running.jobs[0]).toMatchObject({
      jobId: first,
      status: "started",
      title: "Report",
      tags: ["project:7"],
      task: "tests.jobs.count",
      owner: sub,
      endedAt: null,
      attempt: 1,
    });
    const failed = client.feed("mine", { status: "failed" });
    const stopToo = failed.subscribe(() => {});
    const second = await backend.send("fail", ["no such row"], { owner: sub });
    const ended = await until(failed, ({ jobs }) => jobs.length === 1, "a failed job");
    expect(ended.jobs[0]).toMatchObject({ jobId: second, reason: "failure" });
    expect(ended.jobs[0]?.message).toBe("no such row");
    await backend.openGate(gate);
    const state = await until(mine, ({ jobs }) => jobs[1]?.status === "complete", "the end");
    expect(state.jobs.map(({ jobId }) => jobId)).toEqual([second, first]);
    expect(state.jobs[1]?.endedAt).not.toBeNull();
    stop();
    stopToo();
  });

  test("is complete again after the server was killed", async () => {
    const sub = `owner-${randomUUID()}`;
    const tag = `tag-${randomUUID()}`;
    const client = connect({ getToken: () => backend.token(sub, { feeds: ["*"] }) });
    const tagged = client.feed(`tag:${tag}`, { limit: 2 });
    const stop = tagged.subscribe(() => {});
    const sent: string[] = [];
    const send = async () =>
      sent.unshift(await backend.send("count", [1], { owner: sub, tags: [tag] }));
    await send();
    const isComplete = ({ jobs, status }: FeedState): boolean =>
      status === "live" && jobs.every((job) => job.status === "complete");
    await until(tagged, (state) => state.jobs.length === 1 && isComplete(state), "a job");
    await backend.killServer();
    const lost = await until(tagged, ({ status }) => status === "reconnecting", "a loss");
    expect(lost.jobs).toHaveLength(1);
    await send();
    await send();
    await backend.startServer();
    const [newest, next, oldest] = sent;
    const found = await until(
      tagged,
      (state) => state.jobs[0]?.jobId === newest && isComplete(state),
      "the newest jobs",
    );
    expect(found.jobs.map(({ jobId }) => jobId)).toEqual([newest, next]);
    expect(found.hasMore).toBe(true);
    found.loadMore();
    const all = await until(tagged, ({ jobs }) => jobs.length === 3, "the oldest job");
    expect(all.jobs[2]).toMatchObject({ jobId: oldest });
    expect(all.hasMore).toBe(false);
    stop();
  });

  test("that the token does not allow is refused", async () => {
    const client = connect();
    const everything = client.feed("all");
    const refused = await until(everything, ({ status }) => status === "refused", "a refusal");
    expect(refused.error?.code).toBe("feed_not_allowed");
    expect(client.connection.getSnapshot().state).toBe("connected");
  });
});

describe("events", () => {
  test("can be iterated until the job ends", async () => {
    const client = connect();
    const jobId = await backend.send("count", [3]);
    const events: (JobEvent | JobGap)[] = [];
    for await (const event of client.events(jobId)) {
      events.push(event);
    }
    expect(events[0]).toMatchObject({ type: "job_status", status: "queued", job_id: jobId });
    expect(events.at(-1)).toMatchObject({ type: "job_complete", result: { steps: 3 } });
    expect(events.filter((event) => event.type === "job_log")).toHaveLength(3);
    expectInOrder(events);
    await eventually(() => backend.logged(`left ${jobId}`), "a leave");
  });

  test("stop when the signal is aborted", async () => {
    const client = connect({ getToken: everyJob });
    const stopping = new AbortController();
    const jobId = newId();
    await backend.emit(jobId, "job_log", log("one"));
    const events = client.events(jobId, { signal: stopping.signal });
    expect((await events.next()).value).toMatchObject({ message: "one" });
    const next = events.next();
    stopping.abort(new Error("enough"));
    await expect(next).rejects.toThrow("enough");
    await expect(client.result(jobId, { signal: stopping.signal })).rejects.toThrow("enough");
    await eventually(() => backend.logged(`left ${jobId}`), "a leave");
  });

  test("of another run follow a known terminal event", async () => {
    const client = connect({ getToken: everyJob });
    const jobId = newId();
    const failure = { error: "WorkerLost", message: "gone", reason: "worker_lost" };
    await backend.emit(jobId, "job_status", { status: "started", run: 1 });
    await backend.emit(jobId, "job_error", failure);
    await backend.emit(jobId, "job_status", { status: "started", run: 2 });
    const result = client.result(jobId);
    await until(client.job(jobId), (job) => job.run === 2 && job.joined === "yes", "run 2");
    await backend.emit(jobId, "job_complete", { result: "done" });
    expect(await result).toBe("done");
  });

  test("in large numbers cause few notifications, and only the last lines are kept", async () => {
    const client = connect({ getToken: everyJob, logLimit: 500 });
    const jobId = newId();
    const store = client.job(jobId);
    let notifications = 0;
    const stop = store.subscribe(() => {
      notifications += 1;
    });
    const recorded = record(client, jobId);
    await until(store, (job) => job.joined === "yes", "a join");
    const started = performance.now();
    await backend.emit(jobId, "job_log", log("line {n}"), 2000);
    await eventually(() => recorded.events.length === 2000, "2000 events");
    const job = await until(store, (job) => job.droppedLogs === 1500, "dropped lines");
    expect(job.logs).toHaveLength(500);
    expect(job.logs.at(-1)?.message).toBe("line 1999");
    expectInOrder(recorded.events);
    const frames = (performance.now() - started) / 16; // at most one notification in each
    expect(notifications).toBeLessThan(Math.min(2000, frames + 10));
    stop();
  });

  test("of a new record replace those of the old record", async () => {
    const client = connect({ getToken: everyJob });
    const jobId = newId();
    const store = client.job(jobId);
    await backend.emit(jobId, "job_log", log("old one"), 3);
    await until(store, (job) => job.joined === "yes", "a join");
    const stop = store.subscribe(() => {});
    await until(store, (job) => job.logs.length === 3, "the old record");
    await backend.forgetRecord(jobId);
    await backend.emit(jobId, "job_log", log("new one"));
    const job = await until(store, (job) => job.logs.length === 1, "the new record");
    expect(job.logs[0]).toMatchObject({ message: "new one", seq: 1 });
    stop();
  });
});

describe("followers", () => {
  test("of one job share one join, and the last one leaves", async () => {
    const client = connect({ getToken: everyJob });
    const jobId = newId();
    await backend.emit(jobId, "job_log", log("one"));
    const first = record(client, jobId);
    await eventually(() => first.lines.length === 1, "a line");
    const second = record(client, jobId);
    const stop = client.job(jobId).subscribe(() => {});
    await eventually(() => second.lines.length === 1, "the line that was known");
    await backend.emit(jobId, "job_log", log("two"));
    await eventually(() => first.lines.length + second.lines.length === 4, "another line");
    first.stop();
    stop();
    await backend.emit(jobId, "job_log", log("three"));
    await eventually(() => second.lines.length === 3, "a third line");
    expect(first.lines).toEqual(["one", "two"]);
    second.stop();
    await eventually(() => backend.logged(`left ${jobId}`), "a leave");
    expect(await backend.logged(`left ${jobId}`)).toBe(1);
    expect(await backend.logged(`joined ${jobId}`)).toBe(1);
    expect(client.job(jobId).getSnapshot()).toMatchObject({ joined: "no", logs: [] });
  });

  test("that leave and return in the same tick keep the join", async () => {
    const client = connect({ getToken: everyJob });
    const jobId = newId();
    const store = client.job(jobId);
    store.subscribe(() => {})();
    const stop = store.subscribe(() => {});
    await until(store, (job) => job.joined === "yes", "a join");
    stop();
    const recorded = record(client, jobId);
    await backend.emit(jobId, "job_log", log("one"));
    await eventually(() => recorded.lines.length === 1, "a line");
    recorded.stop();
    // The server logs in order, but with a delay.
    await eventually(() => backend.logged(`left ${jobId}`), "a leave");
    expect(await backend.logged(`left ${jobId}`)).toBe(1);
    expect(await backend.logged(`joined ${jobId}`)).toBe(1);
  });

  test("that leave and rejoin rapidly miss no event", async () => {
    const client = connect({ getToken: everyJob });
    const jobId = newId();
    await backend.emit(jobId, "job_log", log("line {n}"), 50);
    const nextTick = () => new Promise((resolve) => setTimeout(resolve, 1));
    for (let round = 0; round < 20; round += 1) {
      const hasty = record(client, jobId);
      await nextTick();
      hasty.stop();
      await nextTick();
    }
    const recorded = record(client, jobId);
    await backend.emit(jobId, "job_complete", { result: 1 });
    await eventually(() => recorded.events.at(-1)?.type === "job_complete", "the end");
    expect(recorded.lines).toEqual(Array.from({ length: 50 }, (_, n) => `line ${n}`));
    expectInOrder(recorded.events);
  });

  test("of two clients are independent", async () => {
    const [alice, bob] = [connect(), connect({ getToken: () => backend.token("bob") })];
    const jobId = await backend.send("count", [2], { owner: "bob" });
    const refused = until(alice.job(jobId), (job) => job.joined === "refused", "a refusal");
    expect(await bob.result(jobId)).toEqual({ steps: 2 });
    await refused;
    bob.close();
    expect(alice.connection.getSnapshot().state).toBe("connected");
  });
});

describe("the maximum number of jobs per connection", () => {
  test.each(["polling", "websocket"] as const)("is joined at once: %s", async (transport) => {
    const client = connect({ getToken: everyJob, transports: [transport] });
    const ids = Array.from({ length: 30 }, newId); // the limit of the test server
    const stops = ids.map((id) => client.follow(id, () => {}));
    for (const id of ids) {
      await until(client.job(id), (job) => job.joined === "yes", "a join");
    }
    // All joins used the first connection; the server closed none.
    expect(client.connection.getSnapshot()).toMatchObject({ state: "connected", attempts: 0 });
    for (const stop of stops) stop();
  });
});

describe("the token", () => {
  test("is renewed without a reconnect", async () => {
    const states: string[] = [];
    let calls = 0;
    const client = connect({
      getToken: async () => {
        calls += 1;
        return backend.token("alice", { jobs: ["*"], ttl: calls === 1 ? 10 : 60 });
      },
    });
    client.connection.subscribe(() => states.push(client.connection.getSnapshot().state));
    const jobId = newId();
    const recorded = record(client, jobId);
    await eventually(() => calls === 2, "another token");
    const { since } = await until(client.connection, (it) => it.state === "connected", "it");
    await eventually(() => Date.now() - since > 10_500, "the first token's end");
    await backend.emit(jobId, "job_log", log("still there"));
    await eventually(() => recorded.lines.length === 1, "a line");
    expect(client.connection.getSnapshot()).toMatchObject({ state: "connected", since });
    expect(states).not.toContain("reconnecting");
    await eventually(() => backend.logged(`joined ${jobId}`), "the line of the join");
    expect(await backend.logged(`joined ${jobId}`)).toBe(1);
  });

  test("that cannot be renewed is requested again when the server closes the connection", async () => {
    let wasConnected = false;
    let failures = 0;
    const client = connect({
      getToken: () => {
        if (wasConnected && failures === 0) {
          failures += 1;
          throw new Error("not now");
        }
        // A token of one second may have expired when it arrives.
        return backend.token("alice", { jobs: ["*"], ttl: wasConnected ? 60 : 1 });
      },
    });
    const jobId = newId();
    const recorded = record(client, jobId);
    await until(client.connection, (it) => it.state === "connected", "the first connection");
    wasConnected = true;
    await until(client.connection, (it) => it.state === "reconnecting", "its end");
    await until(client.connection, (it) => it.state === "connected", "the second connection");
    await backend.emit(jobId, "job_log", log("back"));
    await eventually(() => recorded.lines.length === 1, "a line");
    expect(failures).toBe(1);
  });

  test("of another user leads to a new connection", async () => {
    let sub = "alice";
    const client = connect({
      getToken: () => {
        const token = backend.token(sub, { ttl: sub === "alice" ? 3 : 60 });
        sub = "bob";
        return token;
      },
    });
    const jobId = await backend.send("count", [1], { owner: "bob" });
    const store = client.job(jobId);
    await until(store, (job) => job.joined === "refused" || job.joined === "yes", "an answer");
    const job = await until(store, (job) => job.status === "complete", "bob's job");
    expect(job.result).toEqual({ steps: 1 });
  });

  test("that is refused is reported, and reconnect() requests another one", async () => {
    let token: unknown = "garbage";
    const client = connect({ getToken: () => token as string });
    const jobId = await backend.send("count", [1]);
    const store = client.job(jobId);
    const stop = store.subscribe(() => {});
    const refused = await until(client.connection, (it) => it.state === "refused", "a refusal");
    expect(refused.code).toBe("token_invalid");
    expect(refused.message).toBeTruthy();
    expect(store.getSnapshot().connection).toBe("refused");
    const error = (await client.result(jobId).catch((e: unknown) => e)) as ConnectionRefused;
    expect(error).toMatchObject({ name: "ConnectionRefused", code: "token_invalid" });
    token = await backend.token();
    client.reconnect();
    expect(await client.result(jobId)).toEqual({ steps: 1 });
    stop();
  });

  test("that has expired is requested once more", async () => {
    let calls = 0;
    const client = connect({
      getToken: () => {
        calls += 1;
        return backend.token("alice", { ttl: calls === 1 ? -60 : 60 });
      },
    });
    const jobId = await backend.send("count", [1]);
    expect(await client.result(jobId)).toEqual({ steps: 1 });
    expect(calls).toBe(2);
  });

  test("that has expired twice is refused", async () => {
    let calls = 0;
    const client = connect({
      getToken: () => {
        calls += 1;
        return backend.token("alice", { ttl: -60 });
      },
    });
    await expect(client.result(newId())).rejects.toMatchObject({ code: "token_expired" });
    expect(calls).toBe(2);
  });

  test.each([
    ["rejects", () => Promise.reject(new Error("signed out")), "signed out"],
    [
      "throws",
      () => {
        throw new Error("signed out");
      },
      "signed out",
    ],
    ["returns another type", () => 7 as unknown as string, "has to return a string"],
  ])("is reported as unavailable when getToken %s", async (_, getToken, text) => {
    const client = connect({ getToken });
    const stop = client.job(newId()).subscribe(() => {});
    const waiting = await until(client.connection, (it) => it.attempts === 3, "attempts");
    expect(waiting).toMatchObject({ state: "reconnecting", code: "token_unavailable" });
    expect(waiting.message).toContain(text);
    stop();
  });
});

describe("the connection", () => {
  test("is opened by the first follower and closed by close()", async () => {
    await noConnections();
    const client = connect({ getToken: everyJob });
    const connection = client.connection;
    client.job(newId()).getSnapshot();
    expect(connection.getSnapshot()).toMatchObject({ state: "idle", attempts: 0 });
    const events = client.events(newId());
    const next = events.next();
    const recorded = record(client, newId());
    await until(connection, (it) => it.state === "connected", "a connection");
    await eventually(async () => (await backend.connections()) === 1, "a connection of the server");
    let notifications = 0;
    client.job(newId()).subscribe(() => {
      notifications += 1;
    });
    client.close();
    client.close();
    await expect(next).rejects.toMatchObject({ name: "ConnectionRefused", code: "closed" });
    expect(connection.getSnapshot().state).toBe("closed");
    expect(notifications).toBe(1);
    await noConnections();
    client.reconnect();
    client.job(newId()).subscribe(() => {})();
    recorded.stop();
    await expect(client.result(newId())).rejects.toMatchObject({ code: "closed" });
    expect(connection.getSnapshot().state).toBe("closed");
  });

  test("that is closed while it is being established leaves nothing behind", async () => {
    await noConnections();
    let release = (_: string): void => {};
    const client = connect({
      getToken: () =>
        new Promise((resolve) => {
          release = resolve;
        }),
    });
    client.job(newId()).subscribe(() => {});
    await until(client.connection, (it) => it.state === "connecting", "a try");
    client.close();
    release(await everyJob());
    await noConnections();
    expect(client.connection.getSnapshot().state).toBe("closed");
  });

  test("that the server ends is established again", async () => {
    const client = connect({ getToken: everyJob });
    const jobId = newId();
    const recorded = record(client, jobId);
    const store = client.job(jobId);
    await until(store, (job) => job.joined === "yes", "a join");
    await backend.emit(jobId, "job_log", log("before"));
    await eventually(() => recorded.lines.length === 1, "a line");
    await backend.stopServer();
    await until(client.connection, (it) => it.state === "reconnecting", "an end");
    await backend.emit(jobId, "job_log", log("meanwhile"));
    await backend.startServer();
    await until(store, (job) => job.joined === "yes", "another join");
    await eventually(() => recorded.lines.length === 2, "the line published meanwhile");
    expect(recorded.lines).toEqual(["before", "meanwhile"]);
  });

  test("survives a killed server without lost or repeated events", async () => {
    const client = connect();
    const gate = await backend.gate();
    const jobId = await backend.send("tick", [gate]);
    const recorded = record(client, jobId);
    const store = client.job(jobId);
    const states = new Set<string>();
    const stop = store.subscribe(() => states.add(store.getSnapshot().connection));
    for (const lines of [20, 150]) {
      await eventually(() => recorded.lines.length > lines, "ticks");
      await backend.killServer();
      const lost = await until(store, (job) => job.connection === "reconnecting", "a loss");
      expect(lost).toMatchObject({ joined: "no", status: "started" });
      await backend.startServer();
      await until(store, (job) => job.joined === "yes", "another join");
    }
    await backend.openGate(gate);
    const ticks = await client.result(jobId);
    expect(recorded.lines).toEqual(Array.from({ length: ticks as number }, (_, n) => `tick ${n}`));
    expectInOrder(recorded.events);
    const ended = await until(store, (job) => job.status === "complete", "the end");
    expect(ended.logs.length + ended.droppedLogs).toBe(ticks);
    expect([...states]).toEqual(expect.arrayContaining(["reconnecting", "connected"]));
    stop();
  });

  test.each([
    ["polling", ["polling"]],
    ["polling, then a WebSocket", ["polling", "websocket"]],
    ["a WebSocket, with polling to fall back on", ["websocket", "polling"]],
  ] as const)("is established with %s", async (_, transports) => {
    const client = connect({ transports });
    const jobId = await backend.send("count", [2]);
    expect(await client.result(jobId)).toEqual({ steps: 2 });
  });

  test("that fails is retried forever, and at once by reconnect()", async () => {
    const client = connect();
    await backend.killServer();
    const stop = client.job(newId()).subscribe(() => {});
    await until(client.connection, (it) => it.attempts > 3, "attempts");
    expect(client.connection.getSnapshot()).toMatchObject({ state: "reconnecting", code: null });
    await backend.startServer();
    client.reconnect();
    const { attempts } = await until(client.connection, (it) => it.state === "connected", "it");
    expect(attempts).toBe(0);
    stop();
  });

  test("survives an outage of the store, while joins wait", async () => {
    const client = connect({ getToken: everyJob });
    const early = client.job(newId());
    const stop = early.subscribe(() => {});
    await until(early, (job) => job.joined === "yes", "a join");
    await backend.killValkey();
    const jobId = newId();
    const store = client.job(jobId);
    const recorded = record(client, jobId);
    await until(store, (job) => job.joined === "joining", "a waiting join");
    await backend.startValkey();
    await until(store, (job) => job.joined === "yes", "a join");
    await backend.emit(jobId, "job_log", log("one"));
    await eventually(() => recorded.lines.length === 1, "a line");
    stop();
  });
});
