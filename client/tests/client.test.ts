/** What a jobcast server does not do, or not when a test wants it: a server that plays it. */

import { Socket } from "socket.io-client";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  createJobClient,
  type JobClient,
  type JobClientOptions,
  type JobEvent,
} from "../src/index.js";
import { TestServer } from "./server.js";
import { eventually, until } from "./waiting.js";

let server: TestServer;
const clients: JobClient[] = [];
const unhandled: unknown[] = [];
const noteUnhandled = (reason: unknown): void => void unhandled.push(reason);

beforeEach(async () => {
  process.on("unhandledRejection", noteUnhandled);
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
  process.off("unhandledRejection", noteUnhandled);
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

const say = (message: string, jobId = "a"): void =>
  server.say(jobId, "job_log", { level: "info", message });
const joined = (client: JobClient, jobId = "a") =>
  until(client.job(jobId), (job) => job.joined === "yes", "a join");
const nextMoment = () => new Promise((resolve) => setTimeout(resolve, 5));

function refusal(data?: unknown): Error {
  return Object.assign(new Error("not you"), data === undefined ? {} : { data });
}

describe("joining", () => {
  test("asks for what came after, once the job is known", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    say("one");
    await eventually(() => lines.length === 1, "a line");
    server.drop();
    await until(client.job("a"), (job) => job.joined === "no", "a loss");
    say("two");
    await eventually(() => lines.length === 2, "another line");
    expect(lines).toEqual(["one", "two"]);
    const [first, second] = server.asked("join_job");
    expect(first).toEqual({ job_id: "a" });
    expect(second).toEqual({ job_id: "a", after: { epoch: "epoch-1", seq: 1 } });
  });

  test("skips what was seen, when the server tells everything again", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    await joined(client);
    say("one");
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
    expect((await joined(client)).gaps).toEqual([]); // what it told has no hole
  });

  test("says where something may be missing", async () => {
    const client = connect();
    const store = client.job("a");
    const { lines } = follow(client, "a");
    await joined(client);
    for (const message of ["one", "two"]) say(message);
    await eventually(() => lines.length === 2, "lines");
    expect(store.getSnapshot().gaps).toEqual([]);
    const record = { job_id: "a", epoch: "epoch-1", seq: 9, status: "started" };
    let answers = 0;
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      server.emit("joined", record);
      server.emit("job_log", line(8, "eight"));
      server.emit("job_log", line(9, "nine"));
      answers += 1;
      return answers === 1 ? null : { ok: true, ...record, recovered: false };
    };
    server.drop();
    await eventually(() => lines.length === 4, "other lines");
    server.drop(); // before it said whether these go on from what was seen
    const job = await until(store, (job) => job.gaps.length > 0, "a gap");
    expect(job.gaps).toEqual([2]);
    expect(job.logs.map(({ seq }) => seq)).toEqual([1, 2, 8, 9]);
    expect(server.asked("join_job").at(-1)).toMatchObject({ after: { seq: 2 } });
    server.answer = () => undefined;
    server.renew("a");
    await until(store, (job) => job.gaps.length === 0, "another record");
  });

  test("forgets everything when the epoch is another", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    const store = client.job("a");
    await joined(client);
    say("old");
    await eventually(() => lines.length === 1, "a line");
    server.renew("a");
    server.say("a", "job_log", { level: "info", message: "new" });
    await eventually(() => lines.length === 2, "another line");
    expect(store.getSnapshot().logs).toMatchObject([{ seq: 1, message: "new" }]);
  });

  test("heeds the latest answer only", async () => {
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
    await eventually(() => server.asked("leave_job").length === 1, "a leave");
    const again = follow(client, "a");
    await eventually(() => server.asked("join_job").length === 3, "another join");
    refuse();
    say("one");
    await eventually(() => again.lines.length === 1, "a line");
    const job = await joined(client);
    expect(job).toMatchObject({ joined: "yes", refusal: null });
    other.stop();
  });

  test("goes on from where the record was, though its last event was not told", async () => {
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
    await eventually(() => server.asked("join_job").length === 2, "another join");
    expect(server.asked("join_job")[1]).toEqual({ job_id: "a", after: { epoch: "mine", seq: 5 } });
    stop();
  });

  test.each(["unavailable", "internal_error", "not_authenticated"])(
    "that is answered with %s is tried again",
    async (code) => {
      let tries = 0;
      server.answer = (name) => {
        tries += name === "join_job" ? 1 : 0;
        return tries < 3 ? { ok: false, code, message: "later" } : undefined;
      };
      const client = connect();
      const stop = client.job("a").subscribe(() => {});
      await joined(client);
      expect(tries).toBe(3);
      stop();
    },
  );

  test("that is refused is tried again at reconnect()", async () => {
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

  test("that is not answered makes another connection", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
    server.answer = (name) => (name === "join_job" ? null : undefined);
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    await eventually(() => server.asked("join_job").length === 1, "a request");
    server.answer = () => undefined;
    await vi.advanceTimersByTimeAsync(20_000);
    await joined(client);
    expect(server.tokens).toHaveLength(2);
    stop();
  });

  test("that is answered with nonsense is reported, and tried again", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    let tries = 0;
    server.answer = (name) => {
      tries += name === "join_job" ? 1 : 0;
      return tries === 1 ? { ok: true } : undefined;
    };
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    expect(reported).toHaveBeenCalledOnce();
    stop();
  });
});

describe("what is received", () => {
  test("shows at once what the job did before, not in fast motion", async () => {
    for (let run = 1; run <= 20; run += 1) {
      server.say("a", "job_status", { status: "started", run });
      server.say("a", "job_complete", { result: run });
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

  test("and breaks the protocol is reported and left out", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const client = connect();
    const { lines } = follow(client, "a");
    await joined(client);
    server.emit("job_log", { ...line(1, "bad"), level: "loud" });
    server.emit("job_log");
    server.emit("joined", "nonsense");
    server.emit("an_event_of_the_future", { job_id: "a" });
    say("good");
    await eventually(() => lines.length === 1, "a line");
    expect(lines).toEqual(["good"]);
    expect(reported).toHaveBeenCalledTimes(3);
  });

  test("before the join took effect is left out: it comes again", async () => {
    const client = connect();
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      server.answer = () => undefined;
      server.emit("job_log", line(7, "of a join that was left"));
      return undefined;
    };
    const { lines } = follow(client, "a");
    say("one");
    await joined(client);
    say("two");
    await eventually(() => lines.length === 2, "lines");
    expect(lines).toEqual(["one", "two"]);
  });

  test("of a job that nobody follows is left out", async () => {
    const client = connect();
    const { lines } = follow(client, "a");
    await joined(client);
    server.emit("job_log", { ...line(1, "not asked for"), job_id: "b" });
    say("mine");
    await eventually(() => lines.length === 1, "a line");
    expect(client.job("b").getSnapshot().logs).toEqual([]);
  });

  test("reaches everybody though a listener throws", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const client = connect();
    client.follow("a", () => {
      throw new Error("mine");
    });
    client.job("a").subscribe(() => {
      throw new Error("mine too");
    });
    const { lines } = follow(client, "a");
    await joined(client);
    say("one");
    await eventually(() => lines.length === 1, "a line");
    await eventually(() => reported.mock.calls.length >= 2, "reports");
  });

  test("a follower that goes while it is told what is known gets no more", async () => {
    const client = connect();
    say("one");
    say("two");
    const { lines } = follow(client, "a");
    await eventually(() => lines.length === 2, "lines");
    const events: JobEvent[] = [];
    const stop = client.follow("a", (event) => {
      events.push(event);
      stop();
    });
    await nextMoment();
    expect(events).toHaveLength(1);
  });
});

describe("snapshots", () => {
  test("are the same until something changes, and never change themselves", async () => {
    const client = connect();
    const store = client.job("a");
    expect(store.getSnapshot()).toBe(store.getSnapshot());
    expect(client.job("a")).toBe(store);
    const stop = store.subscribe(() => {});
    await joined(client);
    say("one");
    const first = await until(store, (job) => job.logs.length === 1, "a line");
    expect(store.getSnapshot()).toBe(first);
    expect(first.logs).toBe(first.logs);
    server.say("a", "job_progress", { percentage: 1, message: null });
    const second = await until(store, (job) => job.percentage === 1, "progress");
    expect(second).not.toBe(first);
    expect(second.logs).toBe(first.logs);
    expect(first.percentage).toBeNull();
    stop();
  });

  test("count the time that is left down with what came later", async () => {
    const client = connect();
    const store = client.job("a");
    const stop = store.subscribe(() => {});
    await joined(client);
    const later = { timestamp: "2026-01-15T09:30:02.250000Z" };
    server.say("a", "job_progress", { percentage: 1, message: null, eta: 10 });
    server.say("a", "job_log", { level: "info", message: "later", ...later });
    const job = await until(store, (job) => job.logs.length === 1, "a line");
    expect(job.eta).toBe(8);
    stop();
  });
});

describe("a refused connection", () => {
  test.each([
    ["with a code", { code: "token_key", message: "which key?" }, "token_key", "which key?"],
    ["with a code of its own", { code: "blocked" }, "blocked", "not you"],
    ["without data", undefined, "refused", "not you"],
    ["with data of another kind", "nonsense", "refused", "not you"],
  ])("%s is shown, until reconnect()", async (_, data, code, message) => {
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
    "that is refused with %s is tried again",
    async (code) => {
      let tries = 0;
      server.refuse = () => {
        tries += 1;
        return tries < 3 ? refusal({ code }) : undefined;
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
  test("that never comes is a state, and is asked for again", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
    let asked = 0;
    const client = connect({
      getToken: () => {
        asked += 1;
        return new Promise(() => {});
      },
    });
    const stop = client.job("a").subscribe(() => {});
    for (const time of [1, 2]) {
      await eventually(() => asked === time, "a question");
      await vi.advanceTimersByTimeAsync(15_000);
    }
    const waiting = await until(
      client.connection,
      (it) => it.code === "token_unavailable",
      "a token that is not to be had",
    );
    expect(waiting.state).toBe("reconnecting");
    expect(waiting.message).toContain("15 seconds");
    stop();
  });

  test("that is not to be had is asked for until it is", async () => {
    let asked = 0;
    const states = new Set<string>();
    const client = connect({
      getToken: () => {
        asked += 1;
        return asked < 4 ? Promise.reject(new Error("not now")) : "token";
      },
    });
    client.connection.subscribe(() => states.add(client.connection.getSnapshot().state));
    const stop = client.job("a").subscribe(() => {});
    const waiting = await until(client.connection, (it) => it.attempts === 3, "tries");
    expect(waiting).toMatchObject({ state: "reconnecting", message: "not now" });
    await joined(client);
    expect(asked).toBe(4);
    expect(states).not.toContain("refused");
    expect(client.connection.getSnapshot()).toMatchObject({ code: null, message: null });
    stop();
  });

  test("that comes after the server hung up serves for the next try", async () => {
    let release = (_: string): void => {};
    let asked = 0;
    const client = connect({
      getToken: () => {
        asked += 1;
        return new Promise((resolve) => {
          release = resolve;
        });
      },
    });
    const stop = client.job("a").subscribe(() => {});
    await eventually(() => asked === 1, "a question");
    await server.stop(); // as a server does that waits no longer
    await until(client.connection, (it) => it.state === "reconnecting", "the end");
    release("token");
    server = await TestServer.startAt(server.port);
    await joined(client);
    expect(asked).toBe(1);
    expect(server.tokens).toEqual(["token"]);
    stop();
  });

  test("is renewed as often as it takes", async () => {
    let asked = 0;
    let refused = 0;
    server.answer = (name) => {
      if (name !== "refresh_token" || refused === 1) return undefined;
      refused += 1;
      return { ok: false, code: "unavailable", message: "no keys" };
    };
    const client = connect({
      getToken: () => {
        asked += 1;
        if (asked === 2) throw new Error("not now");
        return `token ${asked}`;
      },
    });
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
    await eventually(() => server.asked("refresh_token").length === 2, "two renewals");
    expect(server.asked("refresh_token")).toEqual([{ token: "token 3" }, { token: "token 4" }]);
    expect(server.tokens).toEqual(["token 1"]);
    stop();
  });

  test("that was not to be had is asked for when the browser is online again", async () => {
    const page = new EventTarget();
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    let isOnline = false;
    const client = connect({
      getToken: () => (isOnline ? "token" : Promise.reject(new TypeError("Failed to fetch"))),
    });
    const stop = client.job("a").subscribe(() => {});
    await until(client.connection, (it) => it.attempts === 3, "tries"); // the next is 400 ms away
    isOnline = true;
    page.dispatchEvent(new Event("online"));
    await joined(client);
    stop();
    const removed = vi.fn();
    vi.stubGlobal("removeEventListener", removed);
    client.close();
    expect(removed).toHaveBeenCalledWith("online", expect.any(Function));
  });

  test("of another subject connects anew, without being asked for again", async () => {
    let asked = 0;
    const client = connect({
      getToken: () => {
        asked += 1;
        return `token ${asked}`;
      },
    });
    const store = client.job("a");
    const stop = store.subscribe(() => {});
    await joined(client);
    say("of the former user");
    await until(store, (job) => job.logs.length === 1, "a line");
    server.answer = (name) =>
      name === "refresh_token"
        ? { ok: false, code: "token_subject", message: "who?" }
        : { ok: false, code: "job_not_found", message: "no such job" };
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
    await eventually(() => server.tokens.length === 2, "another connection");
    const job = await until(store, (job) => job.joined === "refused", "a refusal");
    expect(job.logs).toEqual([]); // of what the former user saw, nothing is left
    expect(server.asked("join_job")[1]).toEqual({ job_id: "a" });
    expect(server.tokens).toEqual(["token 1", "token 2"]);
    stop();
  });
});

describe("the connection", () => {
  test.each(["server", "network"] as const)("that the %s ends is made anew", async (how) => {
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    server.drop(how);
    const lost = await until(client.connection, (it) => it.state === "reconnecting", "a loss");
    expect(lost.message).toContain("the connection was lost");
    await joined(client);
    stop();
  });

  test("is made at once when the browser is online again", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    const page = new EventTarget();
    vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
    vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    const { port } = server;
    await server.stop();
    await until(client.connection, (it) => it.attempts === 3, "tries"); // the next is 800 ms away
    server = await TestServer.startAt(port);
    const begun = Date.now();
    page.dispatchEvent(new Event("online"));
    await joined(client);
    expect(Date.now() - begun).toBeLessThan(600);
    stop();
  });

  test("needs no follower who was there for a moment only", async () => {
    const client = connect();
    client.job("a").subscribe(() => {})();
    await nextMoment();
    expect(client.connection.getSnapshot().state).toBe("idle");
    expect(server.connections).toBe(0);
  });

  test("is made for who comes back when it was nearly given up", async () => {
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

  test("falls back where WebSockets don't get through", async () => {
    await server.stop();
    server = await TestServer.startAt(0, "polling");
    const client = connect({ transports: ["websocket", "polling"] });
    const stop = client.job("a").subscribe(() => {});
    await joined(client);
    expect(client.connection.getSnapshot()).toMatchObject({ state: "connected", attempts: 0 });
    expect(server.tokens).toHaveLength(1);
    stop();
  });

  test.each(["no address", "localhost:8000", "ftp://jobs"])("to %s is refused", async (url) => {
    const client = connect({ url });
    const stop = client.job("a").subscribe(() => {});
    const refused = await until(client.connection, (it) => it.state === "refused", "a refusal");
    expect(refused.code).toBe("invalid_url");
    client.reconnect();
    stop();
  });

  test("that cannot be begun is refused, and may be tried again", async () => {
    const begin = vi.spyOn(Socket.prototype, "connect").mockImplementation(() => {
      throw new Error("not in this runtime");
    });
    const client = connect();
    const stop = client.job("a").subscribe(() => {});
    const refused = await until(client.connection, (it) => it.state === "refused", "a refusal");
    expect(refused).toMatchObject({ code: "unusable", message: "not in this runtime" });
    begin.mockRestore();
    client.reconnect();
    await joined(client);
    stop();
  });

  test("outside of a page needs an address", async () => {
    const client = connect({ url: undefined });
    await expect(client.result("a")).rejects.toMatchObject({
      code: "invalid_url",
      message: expect.stringContaining("url"),
    });
  });

  test("of a closed client leaves no timers, whatever was going on", async () => {
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
    follow(client, "b"); // waits for its next try
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" }); // waits for the token
    await eventually(() => server.asked("join_job").length > 1, "a second request");
    say("one"); // waits for its frame
    client.close();
    await eventually(() => server.connections === 0, "end");
    await eventually(() => timers.size === 0, "no timers");
  });
});

test("without getToken there is no client", () => {
  expect(() => createJobClient({} as JobClientOptions)).toThrow("getToken");
});

test("a job that nobody holds is let go", async () => {
  const { gc } = globalThis as { gc?: () => void };
  expect(gc, "vitest runs with --expose-gc").toBeDefined();
  const client = connect();
  const one = new WeakRef(client.job("a") as object);
  await nextMoment();
  await eventually(() => {
    gc?.();
    return one.deref() === undefined;
  }, "a job that is gone");
});

function line(seq: number, message: string): Record<string, unknown> {
  const timestamp = "2026-01-15T09:30:00Z";
  return { job_id: "a", seq, timestamp, level: "info", message };
}
