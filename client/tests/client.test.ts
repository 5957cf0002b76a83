/** The client against a simulated server, for faults that a real one does not produce on demand. */

import { Socket } from "socket.io-client";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  createJobClient,
  isTerminal,
  type JobClient,
  type JobClientOptions,
  type JobEvent,
  type JobGap,
} from "../src/index.js";
import { subjectOf } from "../src/token.js";
import { futureEvents, futureExample } from "./examples.js";
import { TestServer } from "./server.js";
import { tokenOf } from "./tokens.js";
import { eventually, until } from "./waiting.js";

let server: TestServer;
const clients: JobClient[] = [];
const unhandled: unknown[] = [];
const recordUnhandled = (reason: unknown): void => void unhandled.push(reason);

beforeEach(async () => {
  process.on("unhandledRejection", recordUnhandled);
  server = await TestServer.start();
});

afterEach(async () => {
  for (const client of clients.splice(0)) {
    client.close();
  }
  await server.stop();
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  process.off("unhandledRejection", recordUnhandled);
  expect(unhandled).toEqual([]);
});

function connect(options: Partial<JobClientOptions> = {}): JobClient {
  const client = createJobClient({ url: server.url, getToken: () => "token", ...options });
  clients.push(client);
  return client;
}

function follow(client: JobClient, jobId: string): { lines: string[]; stop: () => void } {
  const lines: string[] = [];
  const stop = client.follow(jobId, (event) => {
    lines.push(event.type === "job_log" ? event.message : event.type);
  });
  return { lines, stop };
}

const publishLine = (message: string, jobId = "a"): void =>
  server.publish(jobId, "job_log", { level: "info", message });
const joined = (client: JobClient, jobId = "a") =>
  until(client.job(jobId), (job) => job.joined === "yes", "a join");
const nextTick = () => new Promise((resolve) => setTimeout(resolve, 5));

function refusal(data?: unknown): Error {
  return Object.assign(new Error("refused"), data === undefined ? {} : { data });
}

/** Make scheduled retries wait for minutes, so that a test sees only those that it triggers. */
function delayRetries(): void {
  vi.spyOn(Math, "random").mockReturnValue(10_000);
}

function stubPageEvents(): EventTarget {
  const page = new EventTarget();
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
  vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
  return page;
}

describe("a join", () => {
  test("resumes after the last seen event when the connection is back", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    publishLine("one");
    await eventually(() => lines.length === 1, "a line");
    server.drop();
    await until(client.job("a"), (job) => job.joined === "no", "a loss");
    publishLine("two");
    await eventually(() => lines.length === 2, "another line");
    expect(lines).toEqual(["one", "two"]);
    const [first, second] = server.requestsNamed("join_job");
    expect(first).toEqual({ job_id: "a" });
    expect(second).toEqual({ job_id: "a", after: { epoch: "epoch-1", seq: 1 } });
  });

  test("skips known events if the server replays the whole history", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    await joined(client);
    publishLine("one");
    await eventually(() => lines.length === 1, "a line");
    const again = { job_id: "a", epoch: "epoch-1", seq: 1, status: "pending" };
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      server.emit("joined", again);
      server.emit("job_log", line(1, "one"));
      server.emit("job_log", line(2, "two"));
      return { ok: true, ...again, seq: 2, recovered: false };
    };
    server.drop("server");
    await eventually(() => lines.length === 2, "another line");
    expect(lines).toEqual(["one", "two"]);
    expect((await joined(client)).gaps).toEqual([]);
  });

  test("resumes after the last seen event if the latest join was not acknowledged", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    await joined(client);
    publishLine("one");
    await eventually(() => lines.length === 1, "a line");
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      server.emit("joined", { job_id: "a", epoch: "epoch-1", seq: 2, status: "started" });
      server.emit("job_log", line(2, "two"));
      return null;
    };
    server.drop();
    await eventually(() => lines.length === 2, "another line");
    server.drop();
    await eventually(() => server.requestsNamed("join_job").length === 3, "a third join");
    expect(server.requestsNamed("join_job")[2]).toMatchObject({ after: { seq: 2 } });
  });

  test("discards the record when the epoch changes", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    const store = client.job("a");
    await joined(client);
    publishLine("old");
    await eventually(() => lines.length === 1, "a line");
    server.resetRecord("a");
    server.publish("a", "job_log", { level: "info", message: "new" });
    await eventually(() => lines.length === 2, "another line");
    expect(store.getSnapshot().logs).toMatchObject([{ seq: 1, message: "new" }]);
  });

  test("ignores acknowledgements of earlier joins", async () => {
    const client = connect();
    const other = follow(client, "b");
    await joined(client, "b");
    let refuse = (): void => {};
    server.answer = (name) => {
      server.answer = () => undefined;
      return name !== "join_job"
        ? undefined
        : new Promise((resolve) => {
            refuse = () => resolve({ ok: false, code: "job_not_found", message: "too late" });
          });
    };
    follow(client, "a").stop();
    await eventually(() => server.requestsNamed("leave_job").length === 1, "a leave");
    const again = follow(client, "a");
    await eventually(() => server.requestsNamed("join_job").length === 3, "another join");
    refuse();
    publishLine("one");
    await eventually(() => again.lines.length === 1, "a line");
    const job = await joined(client);
    expect(job).toMatchObject({ joined: "yes", refusal: null });
    other.stop();
  });

  test("resumes at the acknowledged seq, even without an event of that seq", async () => {
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    const record = { job_id: "a", epoch: "mine", seq: 5, status: "started" };
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      server.emit("joined", record);
      return { ok: true, ...record, recovered: false };
    };
    expect(await joined(client)).toMatchObject({ status: "started" });
    server.drop();
    await eventually(() => server.requestsNamed("join_job").length === 2, "another join");
    expect(server.requestsNamed("join_job")[1]).toEqual({
      job_id: "a",
      after: { epoch: "mine", seq: 5 },
    });
    stop();
  });

  test.each(["unavailable", "internal_error", "not_authenticated"])(
    "is retried after %s",
    async (code) => {
      let attempts = 0;
      server.answer = (name) => {
        attempts += name === "join_job" ? 1 : 0;
        return attempts < 3 ? { ok: false, code, message: "later" } : undefined;
      };
      const client = connect();
      const stop = client.job("a").subscribe(() => {});
      await joined(client);
      expect(attempts).toBe(3);
      stop();
    },
  );

  test("is retried by reconnect() after a refusal", async () => {
    server.answer = () => ({ ok: false, code: "a_code_of_the_future", message: "no" });
    const client = connect();
    const store = client.job("a");
    const stop = store.subscribe(() => {});
    const refused = await until(store, (job) => job.joined === "refused", "a refusal");
    expect(refused.refusal).toEqual({ code: "a_code_of_the_future", message: "no" });
    server.answer = () => undefined;
    client.reconnect();
    await joined(client);
    expect(store.getSnapshot().refusal).toBeNull();
    stop();
  });

  test("that the server does not acknowledge leads to a new connection", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
    server.answer = (name) => (name === "join_job" ? null : undefined);
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    await eventually(() => server.requestsNamed("join_job").length === 1, "a request");
    server.answer = () => undefined;
    await vi.advanceTimersByTimeAsync(20_000);
    await joined(client);
    expect(server.tokens).toHaveLength(2);
    stop();
  });

  test("with an invalid acknowledgement is reported and retried", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    let attempts = 0;
    server.answer = (name) => {
      attempts += name === "join_job" ? 1 : 0;
      return attempts === 1 ? { ok: true } : undefined;
    };
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    expect(reported).toHaveBeenCalledOnce();
    stop();
  });
});

describe("received events", () => {
  test("of the history change the snapshot only once", async () => {
    for (let run = 1; run <= 20; run += 1) {
      server.publish("a", "job_status", { status: "started", run });
      server.publish("a", "job_complete", { result: run });
    }
    const client = connect();
    const store = client.job("a");
    const seen = new Set<unknown>();
    const stop = client.follow("a", () => seen.add(store.getSnapshot().result));
    await joined(client);
    expect([...seen]).toEqual([null]);
    expect(store.getSnapshot().result).toBe(20);
    stop();
  });

  test("that violate the protocol are reported and ignored", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const client = connect();
    const { lines } = follow(client, "a");
    await joined(client);
    server.emit("job_log", { ...line(1, "bad"), level: null });
    server.emit("job_log");
    server.emit("job_gap", { job_id: "a", after: 0, before: 1 });
    server.emit("joined", "nonsense");
    server.emit("an_event_of_the_future", { job_id: "a" });
    publishLine("good");
    await eventually(() => lines.length === 1, "a line");
    expect(lines).toEqual(["good"]);
    expect(reported).toHaveBeenCalledTimes(4);
  });

  test("that arrive before the join takes effect are ignored, and replayed later", async () => {
    const client = connect();
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      server.answer = () => undefined;
      server.emit("job_log", line(7, "of an earlier join"));
      return undefined;
    };
    const { lines } = follow(client, "a");
    publishLine("one");
    await joined(client);
    publishLine("two");
    await eventually(() => lines.length === 2, "lines");
    expect(lines).toEqual(["one", "two"]);
  });

  test("of a job without followers are ignored", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    await joined(client);
    server.emit("job_log", { ...line(1, "not requested"), job_id: "b" });
    publishLine("mine");
    await eventually(() => lines.length === 1, "a line");
    expect(client.job("b").getSnapshot().logs).toEqual([]);
  });

  test("reach all listeners even if one throws", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const client = connect();
    client.follow("a", () => {
      throw new Error("in a follower");
    });
    client.job("a").subscribe(() => {
      throw new Error("in a subscriber");
    });
    const { lines } = follow(client, "a");
    await joined(client);
    publishLine("one");
    await eventually(() => lines.length === 1, "a line");
    await eventually(() => reported.mock.calls.length >= 2, "reports");
  });

  test("do not reach a follower that stops during the replay", async () => {
    const client = connect();
    publishLine("one");
    publishLine("two");
    const { lines } = follow(client, "a");
    await eventually(() => lines.length === 2, "lines");
    const events: (JobEvent | JobGap)[] = [];
    const stop = client.follow("a", (event) => {
      events.push(event);
      stop();
    });
    await nextTick();
    expect(events).toHaveLength(1);
  });
});

describe("trimmed history", () => {
  /** Follow a job that has two lines, then lose the lines 3 and 4 while the connection is down. */
  async function missLines(client: JobClient): Promise<string[]> {
    const { lines } = follow(client, "a");
    await joined(client);
    for (const message of ["one", "two"]) publishLine(message);
    await eventually(() => lines.length === 2, "lines");
    server.drop();
    await until(client.job("a"), (job) => job.joined === "no", "a loss");
    for (const message of ["three", "four"]) publishLine(message);
    server.publish("a", "job_status", { status: "started" });
    for (const message of ["six", "seven"]) publishLine(message);
    server.trim("a", 6);
    await eventually(() => lines.includes("seven"), "later lines");
    return lines;
  }

  test("is a gap before the first event after it", async () => {
    const client = connect();
    const store = client.job("a");
    const lines = await missLines(client);
    expect(lines).toEqual(["one", "two", "job_status", "job_gap", "six", "seven"]);
    const { gaps, logs, status } = await joined(client);
    expect(gaps).toMatchObject([{ after: 2, before: 6 }]);
    expect(logs.map(({ seq }) => seq)).toEqual([1, 2, 6, 7]);
    expect(status).toBe("started");
    server.drop();
    await until(store, (job) => job.joined === "no", "another loss");
    publishLine("eight");
    await eventually(() => lines.includes("eight"), "a live line");
    expect((await joined(client)).gaps).toMatchObject([{ after: 2, before: 6 }]);
  });

  test("is shown to later followers in the same place", async () => {
    const client = connect();
    await missLines(client);
    const { lines } = follow(client, "a");
    await eventually(() => lines.length === 6, "the known events");
    expect(lines).toEqual(["one", "two", "job_status", "job_gap", "six", "seven"]);
  });

  test("is a gap at the beginning for a client that joins late", async () => {
    server.publish("a", "job_status", { status: "queued", task: "tasks.work" });
    server.publish("a", "job_status", { status: "started", attempt: 1, run: 1 });
    for (const message of ["three", "four", "five"]) publishLine(message);
    server.trim("a", 5);
    const client = connect();
    const { lines } = follow(client, "a");
    const job = await joined(client);
    expect(job.gaps).toMatchObject([{ after: 0, before: 5 }]);
    expect(job).toMatchObject({ status: "started", task: "tasks.work", run: 1 });
    expect(job.startedAt).not.toBeNull();
    expect(lines).toEqual(["job_status", "job_status", "job_gap", "five"]);
  });

  test("does not end the iteration over the events", async () => {
    publishLine("one");
    publishLine("two");
    server.trim("a", 2);
    server.publish("a", "job_complete", { result: 7 });
    const types: string[] = [];
    for await (const event of connect().events("a")) {
      types.push(event.type);
    }
    expect(types).toEqual(["job_gap", "job_log", "job_complete"]);
  });

  test("is forgotten with its record", async () => {
    const client = connect();
    const store = client.job("a");
    await missLines(client);
    server.resetRecord("a");
    await until(store, (job) => job.gaps.length === 0, "another record");
  });

  test("is not reported for events that the client has seen", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    await joined(client);
    for (const message of ["one", "two", "three"]) publishLine(message);
    await eventually(() => lines.length === 3, "lines");
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      const record = { job_id: "a", epoch: "epoch-1", seq: 7, status: "started" };
      server.emit("joined", { ...record, complete_from: 6 });
      server.emit("job_gap", { job_id: "a", after: 0, before: 3 });
      server.emit("job_gap", { job_id: "a", after: 0, before: 6 });
      server.emit("job_log", line(6, "six"));
      return { ok: true, ...record, recovered: false };
    };
    server.drop();
    await eventually(() => lines.includes("six"), "a later line");
    expect((await joined(client)).gaps).toMatchObject([{ after: 3, before: 6 }]);
  });
});

describe("a later server", () => {
  test("is described by its hello", async () => {
    server.hello = futureExample("hello-newer-protocol").payload;
    const client = connect();
    expect(client.connection.getSnapshot()).toMatchObject({ server: null, features: null });
    const stop = client.job("a").subscribe(() => {});
    const connected = await until(client.connection, ({ server }) => server !== null, "a hello");
    expect(connected).toMatchObject({ state: "connected", server: "jobcast/1.0.0" });
    expect(connected.features).toContain("cancel_job");
    server.drop();
    const lost = await until(client.connection, ({ state }) => state !== "connected", "a loss");
    expect(lost).toMatchObject({ server: null, features: null });
    stop();
  });

  test.each([null, {}, { protocol: 1, server: "jobcast/1.0.0", features: null }])(
    "may send no valid hello: %j",
    async (hello) => {
      vi.spyOn(console, "error").mockImplementation(() => {});
      server.hello = hello;
      const client = connect();
      const { lines } = follow(client, "a");
      await joined(client);
      publishLine("one");
      await eventually(() => lines.length === 1, "a line");
      expect(client.connection.getSnapshot()).toMatchObject({ server: null, features: null });
    },
  );

  test.each(futureEvents())("sends $name, which the client delivers", async (example) => {
    const client = connect();
    const events: (JobEvent | JobGap)[] = [];
    client.follow("4f1c", (event) => events.push(event));
    await joined(client, "4f1c");
    server.emit(example.message, example.payload);
    await eventually(() => events.length === 1, "the event");
    expect(events[0]).toEqual({ type: example.message, ...example.payload });
  });

  test("sends unknown events, which the client ignores", async () => {
    const client = connect();
    const { lines } = follow(client, "4f1c");
    await joined(client, "4f1c");
    const { message, payload } = futureExample("job_value-unknown-event");
    server.emit(message, payload);
    server.emit("job_log", { ...futureExample("job_log-unknown-level").payload, message: "next" });
    await eventually(() => lines.length === 1, "the next event");
    expect(lines).toEqual(["next"]);
  });

  test("reports an unknown state: the job has not ended", async () => {
    const client = connect();
    const record = futureExample("joined-unknown-state").payload;
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      server.emit("joined", { ...record, job_id: "4f1c" });
      return futureExample("join_job.ack-unknown-state").payload;
    };
    const stop = client.job("4f1c").subscribe(() => {});
    const job = await joined(client, "4f1c");
    expect(job).toMatchObject({ status: "paused", endedAt: null });
    expect(isTerminal(job.status)).toBe(false);
    stop();
  });

  test("ends a job with an unknown reason", async () => {
    const client = connect();
    const result = client.result("4f1c");
    await joined(client, "4f1c");
    server.emit("job_error", futureExample("job_error-unknown-reason").payload);
    await expect(result).rejects.toMatchObject({ name: "JobFailed", reason: "abandoned" });
  });
});

describe("snapshots", () => {
  test("are immutable, and identical until the state changes", async () => {
    const client = connect();
    const store = client.job("a");
    expect(store.getSnapshot()).toBe(store.getSnapshot());
    expect(client.job("a")).toBe(store);
    const stop = store.subscribe(() => {});
    await joined(client);
    publishLine("one");
    const first = await until(store, (job) => job.logs.length === 1, "a line");
    expect(store.getSnapshot()).toBe(first);
    expect(first.logs).toBe(first.logs);
    server.publish("a", "job_progress", { percentage: 1 });
    const second = await until(store, (job) => job.percentage === 1, "progress");
    expect(second).not.toBe(first);
    expect(second.logs).toBe(first.logs);
    expect(first.percentage).toBeNull();
    stop();
  });

  test("reduce the remaining time by the time that has passed at the latest event", async () => {
    const client = connect();
    const store = client.job("a");
    const stop = store.subscribe(() => {});
    await joined(client);
    const later = { timestamp: "2026-01-15T09:30:02.250000Z" };
    server.publish("a", "job_progress", { percentage: 1, eta: 10 });
    server.publish("a", "job_log", { level: "info", message: "later", ...later });
    const job = await until(store, (job) => job.logs.length === 1, "a line");
    expect(job.eta).toBe(8);
    stop();
  });
});

describe("a refused connection", () => {
  test.each([
    ["with a code", { code: "token_key", message: "unknown key" }, "token_key", "unknown key"],
    ["with a custom code", { code: "blocked" }, "blocked", "refused"],
    ["without data", undefined, "refused", "refused"],
    ["with invalid data", "nonsense", "refused", "refused"],
  ])("%s is reported until reconnect()", async (_, data, code, message) => {
    server.refuse = () => refusal(data);
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    const refused = await until(client.connection, (it) => it.state === "refused", "a refusal");
    expect(refused).toMatchObject({ code, message });
    await expect(client.result("a")).rejects.toMatchObject({ name: "ConnectionRefused", code });
    server.refuse = () => undefined;
    client.reconnect();
    await joined(client);
    expect(client.connection.getSnapshot()).toMatchObject({ code: null, message: null });
    stop();
  });

  test.each(["unavailable", "rate_limited", "too_many_connections"])(
    "with %s is retried",
    async (code) => {
      let attempts = 0;
      server.refuse = () => {
        attempts += 1;
        return attempts < 3 ? refusal({ code }) : undefined;
      };
      const states = new Set<string>();
      const client = connect();
      client.connection.subscribe(() => states.add(client.connection.getSnapshot().state));
      const stop = client.job("a").subscribe(() => {});
      await joined(client);
      expect(states).not.toContain("refused");
      expect(server.tokens).toHaveLength(3);
      stop();
    },
  );
});

describe("the token", () => {
  test("that does not arrive in time is reported and requested again", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
    let calls = 0;
    const client = connect({
      getToken: () => {
        calls += 1;
        return new Promise(() => {});
      },
    });
    const stop = client.job("a").subscribe(() => {});
    for (const time of [1, 2]) {
      await eventually(() => calls === time, "a call");
      await vi.advanceTimersByTimeAsync(15_000);
    }
    const waiting = await until(
      client.connection,
      (it) => it.code === "token_unavailable",
      "a timeout",
    );
    expect(waiting.state).toBe("reconnecting");
    expect(waiting.message).toContain("15 seconds");
    stop();
  });

  test("that is unavailable is requested until it is available", async () => {
    let calls = 0;
    const states = new Set<string>();
    const client = connect({
      getToken: () => {
        calls += 1;
        return calls < 4 ? Promise.reject(new Error("not now")) : "token";
      },
    });
    client.connection.subscribe(() => states.add(client.connection.getSnapshot().state));
    const stop = client.job("a").subscribe(() => {});
    const waiting = await until(client.connection, (it) => it.attempts === 3, "attempts");
    expect(waiting).toMatchObject({ state: "reconnecting", message: "not now" });
    await joined(client);
    expect(calls).toBe(4);
    expect(states).not.toContain("refused");
    expect(client.connection.getSnapshot()).toMatchObject({ code: null, message: null });
    stop();
  });

  test("that arrives after the server has hung up is used for the next attempt", async () => {
    let release = (_: string): void => {};
    let calls = 0;
    const client = connect({
      getToken: () => {
        calls += 1;
        return new Promise((resolve) => {
          release = resolve;
        });
      },
    });
    const stop = client.job("a").subscribe(() => {});
    await eventually(() => calls === 1, "a call");
    await server.stop(); // like a server whose handshake times out
    await until(client.connection, (it) => it.state === "reconnecting", "the end");
    release("token");
    server = await TestServer.startAt(server.port);
    await joined(client);
    expect(calls).toBe(1);
    expect(server.tokens).toEqual(["token"]);
    stop();
  });

  test("that was requested before reconnect() is not used after it", async () => {
    const releases: ((token: string) => void)[] = [];
    const client = connect({ getToken: () => new Promise((resolve) => releases.push(resolve)) });
    const stop = client.job("a").subscribe(() => {});
    await eventually(() => releases.length === 1, "a call");
    client.reconnect();
    releases[0]?.(tokenOf("ada"));
    await eventually(() => releases.length === 2, "another call");
    releases[1]?.(tokenOf("bob"));
    await joined(client);
    expect(server.tokens).toEqual([tokenOf("bob")]);
    stop();
  });

  test("that was sent before reconnect() is renewed as soon as the connection is open", async () => {
    let user = "ada";
    const client = connect({ getToken: () => tokenOf(user) });
    server.refuse = () => {
      user = "bob";
      client.reconnect();
      return undefined;
    };
    const stop = client.job("a").subscribe(() => {});
    await eventually(() => server.requestsNamed("refresh_token").length === 1, "a renewal");
    expect(server.tokens).toEqual([tokenOf("ada")]);
    expect(server.requestsNamed("refresh_token")).toEqual([{ token: tokenOf("bob") }]);
    stop();
  });

  test("that arrives after a later one has been requested is not used", async () => {
    const releases: ((token: string | null) => void)[] = [];
    const client = connect({ getToken: () => new Promise((resolve) => releases.push(resolve)) });
    const stop = client.job("a").subscribe(() => {});
    await eventually(() => releases.length === 1, "a call");
    releases[0]?.("token 1");
    await joined(client);
    client.reconnect(); // no user is signed in
    client.reconnect(); // a user is signed in again
    await eventually(() => releases.length === 3, "two calls");
    releases[2]?.("token 3");
    await eventually(() => server.requestsNamed("refresh_token").length === 1, "a renewal");
    releases[1]?.(null);
    publishLine("after both");
    await until(client.job("a"), (job) => job.logs.length === 1, "a line");
    expect(client.connection.getSnapshot().state).toBe("connected");
    expect(server.requestsNamed("refresh_token")).toEqual([{ token: "token 3" }]);
    stop();
  });

  test("is not sent by a client without tokens, and not renewed", async () => {
    const client = connect({ getToken: null });
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
    publishLine("after the warning");
    await until(client.job("a"), (job) => job.logs.length === 1, "a line");
    expect(server.tokens).toEqual([undefined]);
    expect(server.requests.map(([name]) => name)).toEqual(["join_job"]);
    stop();
  });

  test("renewal is retried until it succeeds", async () => {
    let calls = 0;
    let refused = 0;
    server.answer = (name) => {
      if (name !== "refresh_token" || refused === 1) return undefined;
      refused += 1;
      return { ok: false, code: "unavailable", message: "no keys" };
    };
    const client = connect({
      getToken: () => {
        calls += 1;
        if (calls === 2) throw new Error("not now");
        return `token ${calls}`;
      },
    });
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
    await eventually(() => server.requestsNamed("refresh_token").length === 2, "two renewals");
    expect(server.requestsNamed("refresh_token")).toEqual([
      { token: "token 3" },
      { token: "token 4" },
    ]);
    expect(server.tokens).toEqual(["token 1"]);
    stop();
  });

  test("that was unavailable is requested again when the browser goes online", async () => {
    const page = stubPageEvents();
    delayRetries();
    let isOnline = false;
    const client = connect({
      getToken: () => (isOnline ? "token" : Promise.reject(new TypeError("Failed to fetch"))),
    });
    const stop = client.job("a").subscribe(() => {});
    await until(client.connection, (it) => it.code === "token_unavailable", "a failure");
    isOnline = true;
    page.dispatchEvent(new Event("online"));
    await joined(client);
    stop();
    const removed = vi.fn();
    vi.stubGlobal("removeEventListener", removed);
    client.close();
    expect(removed).toHaveBeenCalledWith("online", expect.any(Function));
  });

  test("of another subject is used for a new connection, without another call", async () => {
    let calls = 0;
    const client = connect({
      getToken: () => {
        calls += 1;
        return `token ${calls}`;
      },
    });
    const store = client.job("a");
    const stop = store.subscribe(() => {});
    await joined(client);
    publishLine("of the previous user");
    await until(store, (job) => job.logs.length === 1, "a line");
    server.answer = (name) =>
      name === "refresh_token"
        ? { ok: false, code: "token_subject", message: "another subject" }
        : { ok: false, code: "job_not_found", message: "no such job" };
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
    await eventually(() => server.tokens.length === 2, "another connection");
    const job = await until(store, (job) => job.joined === "refused", "a refusal");
    expect(job.logs).toEqual([]); // nothing of the previous user is left
    expect(server.requestsNamed("join_job")[1]).toEqual({ job_id: "a" });
    expect(server.tokens).toEqual(["token 1", "token 2"]);
    stop();
  });
});

describe("another user", () => {
  let user: string | null;
  let client: JobClient;
  let stops: (() => void)[];

  /** Follow a job and a list as ada, and then refuse both. */
  beforeEach(async () => {
    user = "ada";
    client = connect({ getToken: () => user && tokenOf(user) });
    const created_at = "2026-01-15T09:30:00Z";
    const summary = { job_id: "a", epoch: "e", seq: 1, status: "started", created_at } as const;
    server.setFeed("mine", [summary]);
    const [job, feed] = [client.job("a"), client.feed("mine")];
    stops = [job.subscribe(() => {}), feed.subscribe(() => {})];
    await joined(client);
    publishLine("of ada");
    await until(job, ({ logs }) => logs.length === 1, "a line");
    await until(feed, ({ status, jobs }) => status === "live" && jobs.length === 1, "a list");
    server.answer = (name, { token }) => {
      if (name === "refresh_token") {
        return token === tokenOf("ada")
          ? undefined
          : { ok: false, code: "token_subject", message: "another subject" };
      }
      return name === "join_job" || name === "join_feed" ? null : undefined;
    };
  });

  afterEach(() => stops.forEach((stop) => void stop()));

  const shown = () => ({
    lines: client
      .job("a")
      .getSnapshot()
      .logs.map(({ message }) => message),
    jobs: client.feed("mine").getSnapshot().jobs.length,
  });
  const reconnected = () => eventually(() => server.tokens.length === 2, "another connection");
  const connected = () => until(client.connection, ({ state }) => state === "connected", "success");

  test("who signs in while the connection is lost sees nothing of the previous one", async () => {
    user = "bob";
    server.drop("network");
    await reconnected();
    await connected();
    expect(server.tokens[1]).toBe(tokenOf("bob"));
    expect(shown()).toEqual({ lines: [], jobs: 0 });
    expect(server.requestsNamed("join_job")[1]).toEqual({ job_id: "a" });
  });

  test("who signs in while the page is connected gets a connection with reconnect()", async () => {
    user = "bob";
    client.reconnect();
    await reconnected();
    await connected();
    expect(server.tokens).toEqual([tokenOf("ada"), tokenOf("bob")]);
    expect(shown()).toEqual({ lines: [], jobs: 0 });
  });

  test("who signs in after the previous one has signed out sees nothing of them", async () => {
    user = null;
    server.drop("network");
    await until(client.connection, ({ code }) => code === "token_missing", "a refusal");
    user = "bob";
    client.reconnect();
    await reconnected();
    await connected();
    expect(shown()).toEqual({ lines: [], jobs: 0 });
  });

  test("is not assumed for another token of the same user", async () => {
    client.reconnect();
    await eventually(() => server.requestsNamed("refresh_token").length === 1, "a renewal");
    server.drop("network");
    await reconnected();
    await connected();
    expect(shown()).toEqual({ lines: ["of ada"], jobs: 1 });
    expect(server.requestsNamed("join_job")[1]).toMatchObject({ after: { seq: 1 } });
  });
});

test("a pending renewal of the token is not repeated by further calls of reconnect()", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
  let calls = 0;
  const client = connect({
    getToken: () => {
      calls += 1;
      if (calls > 1) throw new Error("not now");
      return "token";
    },
  });
  const stop = client.job("a").subscribe(() => {});
  await joined(client);
  for (let times = 0; times < 3; times += 1) {
    client.reconnect();
    await vi.advanceTimersByTimeAsync(10);
  }
  expect(calls).toBe(4);
  await vi.advanceTimersByTimeAsync(1000);
  expect(calls).toBe(5);
  stop();
});

test.each([
  [tokenOf("ada"), "ada"],
  [tokenOf("Zo\u00eb"), "Zo\u00eb"],
  [tokenOf(7), "7"],
  [tokenOf(undefined), null],
  ["opaque", null],
  ["a.%%%.c", null],
  ["e30.bnVsbA.sig", null],
])("the subject of the token %s is %s", (token, subject) => {
  const known = subjectOf(token);
  expect(known && Buffer.from(known, "latin1").toString()).toBe(subject);
});

describe("the connection", () => {
  test.each(["server", "network"] as const)(
    "that the %s ends is established again",
    async (how) => {
      const client = connect();
      const stop = client.job("a").subscribe(() => {});
      await joined(client);
      server.drop(how);
      const lost = await until(client.connection, (it) => it.state === "reconnecting", "a loss");
      expect(lost.message).toContain("the connection was lost");
      await joined(client);
      stop();
    },
  );

  test("is retried at once when the browser goes online", async () => {
    const page = stubPageEvents();
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    const { port } = server;
    delayRetries();
    await server.stop();
    await until(client.connection, (it) => it.state === "reconnecting", "a loss");
    server = await TestServer.startAt(port);
    page.dispatchEvent(new Event("online"));
    await joined(client);
    stop();
  });

  test("is not opened for a follower that leaves in the same tick", async () => {
    const client = connect();
    client.job("a").subscribe(() => {})();
    await nextTick();
    expect(client.connection.getSnapshot().state).toBe("idle");
    expect(server.connections).toBe(0);
  });

  test("is opened for a follower that returns while it is being cancelled", async () => {
    const client = connect();
    const store = client.job("a");
    for (let round = 0; round < 20 && server.connections === 0; round += 1) {
      store.subscribe(() => {})();
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    const stop = store.subscribe(() => {});
    await joined(client);
    stop();
  });

  test("falls back to polling where WebSockets are blocked", async () => {
    await server.stop();
    server = await TestServer.startAt(0, "polling");
    const client = connect({ transports: ["websocket", "polling"] });
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    expect(client.connection.getSnapshot()).toMatchObject({ state: "connected", attempts: 0 });
    expect(server.tokens).toHaveLength(1);
    stop();
  });

  test.each(["no address", "localhost:8000", "ftp://jobs"])(
    "with the url %s is refused",
    async (url) => {
      const client = connect({ url });
      const stop = client.job("a").subscribe(() => {});
      const refused = await until(client.connection, (it) => it.state === "refused", "a refusal");
      expect(refused.code).toBe("invalid_url");
      client.reconnect();
      stop();
    },
  );

  test("that the runtime cannot start is refused until reconnect()", async () => {
    const start = vi.spyOn(Socket.prototype, "connect").mockImplementation(() => {
      throw new Error("not in this runtime");
    });
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    const refused = await until(client.connection, (it) => it.state === "refused", "a refusal");
    expect(refused).toMatchObject({ code: "unusable", message: "not in this runtime" });
    start.mockRestore();
    client.reconnect();
    await joined(client);
    stop();
  });

  test("outside of a page requires a url", async () => {
    const client = connect({ url: undefined });
    await expect(client.result("a")).rejects.toMatchObject({
      code: "invalid_url",
      message: expect.stringContaining("url"),
    });
  });

  test("of a closed client leaves no timers", async () => {
    const timers = new Set<unknown>();
    const [set, clear] = [globalThis.setTimeout, globalThis.clearTimeout];
    vi.stubGlobal("setTimeout", (action: () => void, delay: number) => {
      const timer = set(() => {
        timers.delete(timer);
        action();
      }, delay);
      timers.add(timer);
      return timer;
    });
    vi.stubGlobal("clearTimeout", (timer: NodeJS.Timeout) => {
      timers.delete(timer);
      clear(timer);
    });
    const client = createJobClient({
      url: server.url,
      getToken: () => (server.tokens.length ? new Promise(() => {}) : "token"),
    });
    follow(client, "a").stop();
    follow(client, "a");
    await joined(client);
    server.answer = () => ({ ok: false, code: "unavailable", message: "later" });
    follow(client, "b"); // waits for its retry
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" }); // waits for the token
    await eventually(() => server.requestsNamed("join_job").length > 1, "a second request");
    publishLine("one"); // waits for its frame
    client.close();
    await eventually(() => server.connections === 0, "end");
    await eventually(() => timers.size === 0, "no timers");
  });
});

test("createJobClient requires getToken", () => {
  expect(() => createJobClient({} as JobClientOptions)).toThrow("getToken");
});

test("a job without references is garbage-collected", async () => {
  const { gc } = globalThis as { gc?: () => void };
  expect(gc, "vitest runs with --expose-gc").toBeDefined();
  const client = connect();
  const one = new WeakRef(client.job("a") as object);
  await nextTick();
  await eventually(() => {
    gc?.();
    return one.deref() === undefined;
  }, "a collected job");
});

function line(seq: number, message: string): Record<string, unknown> {
  const timestamp = "2026-01-15T09:30:00Z";
  return { job_id: "a", seq, timestamp, level: "info", message };
}
