/** How the client takes refusals that pass, rights that end, and doors that stay shut. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { LONGEST_PAUSE, pauseAfter } from "../src/backoff.js";
import { probe } from "../src/handshake.js";
import { createJobClient, type JobClient, type JobClientOptions } from "../src/index.js";
import { TestServer } from "./server.js";
import { eventually, until } from "./waiting.js";

const RETRY_AFTER = 0.4; // seconds
const RATE_LIMITED = {
  ok: false,
  code: "rate_limited",
  message: "too many requests",
  retry_after: RETRY_AFTER,
};
const LEFT = { job_id: "a", code: "job_not_found", message: "there is no such job" };

let server: TestServer;
const clients: JobClient[] = [];

beforeEach(async () => {
  server = await TestServer.start();
});

afterEach(async () => {
  for (const client of clients.splice(0)) {
    client.close();
  }
  await server.stop();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

function connect(options: Partial<JobClientOptions> = {}): JobClient {
  const client = createJobClient({ url: server.url, getToken: () => "token", ...options });
  clients.push(client);
  return client;
}

const joined = (client: JobClient, jobId = "a") =>
  until(client.job(jobId), (job) => job.joined === "yes", "a join");
const refused = (client: JobClient) =>
  until(client.connection, (it) => it.state === "refused", "a refusal");

/** Refuses the first requests of a name, and notes when they came. */
function refuseFirst(name: string, times = 2): number[] {
  const arrivals: number[] = [];
  server.answer = (request) => {
    if (request !== name) return undefined;
    arrivals.push(performance.now());
    return arrivals.length <= times ? RATE_LIMITED : undefined;
  };
  return arrivals;
}

function expectPauses(arrivals: readonly number[]): void {
  const pauses = arrivals.slice(1).map((at, index) => at - (arrivals[index] as number));
  // A timer of Node's may be a millisecond early.
  expect(Math.min(...pauses)).toBeGreaterThanOrEqual(RETRY_AFTER * 1000 - 2);
}

describe("a request that is rate limited", () => {
  test("is sent again after the pause: a join", async () => {
    const arrivals = refuseFirst("join_job");
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    expect(arrivals).toHaveLength(3);
    expectPauses(arrivals);
  });

  test("is sent again after the pause: a leave", async () => {
    const arrivals = refuseFirst("leave_job");
    const client = connect();
    const stop = client.follow("a", () => {});
    await joined(client);
    stop();
    await eventually(() => arrivals.length === 3, "an accepted leave");
    expectPauses(arrivals);
  });

  test("is sent again after the pause: a refresh", async () => {
    const arrivals = refuseFirst("refresh_token", 1);
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
    await eventually(() => arrivals.length === 2, "an accepted refresh");
    expectPauses(arrivals);
  });

  test("is not sent again if the job that was left is followed again", async () => {
    const arrivals = refuseFirst("leave_job", 1);
    const client = connect();
    client.follow("b", () => {});
    const stop = client.follow("a", () => {});
    await joined(client);
    stop();
    await eventually(() => arrivals.length === 1, "a refused leave");
    client.follow("a", () => {});
    await joined(client);
    await new Promise((resolve) => setTimeout(resolve, 1.5 * RETRY_AFTER * 1000));
    expect(arrivals).toHaveLength(1);
  });

  test("is a connection too", async () => {
    let tries = 0;
    server.refuse = () => {
      tries += 1;
      const { code, retry_after } = RATE_LIMITED;
      return tries > 2
        ? undefined
        : Object.assign(new Error("too many"), { data: { code, retry_after } });
    };
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    expect(server.tokens).toHaveLength(3);
  });

  test.each([
    [2, 2000, 2500],
    [1e300, LONGEST_PAUSE, LONGEST_PAUSE * 1.25],
    [0, 50, 100],
    [undefined, 50, 100],
  ])("with retry_after %s waits from %d to %d ms", (retry_after, least, most) => {
    const refusal = retry_after === undefined ? {} : { retry_after };
    expect(pauseAfter(refusal, 0, 0)).toBe(least);
    expect(pauseAfter(refusal, 0, 1)).toBe(most);
  });
});

describe("the end of a right", () => {
  test("is a refusal of the job, for everybody who follows it", async () => {
    const client = connect();
    client.follow("a", () => {});
    client.follow("b", () => {});
    await joined(client, "b");
    await joined(client);
    const result = client.result("a").catch((error: unknown) => error);
    server.emit("left", LEFT);
    const { code, message } = LEFT;
    expect(await result).toMatchObject({ name: "JobRefused", code, message });
    expect(client.job("a").getSnapshot()).toMatchObject({
      joined: "refused",
      refusal: { code, message },
    });
    expect(client.job("b").getSnapshot().joined).toBe("yes");
    // What still comes of the job is not for this client.
    server.say("a", "job_log", { level: "info", message: "secret" });
    server.say("b", "job_log", { level: "info", message: "mine" });
    await until(client.job("b"), (job) => job.logs.length === 1, "a line");
    expect(client.job("a").getSnapshot().logs).toEqual([]);
    client.reconnect();
    await joined(client);
  });

  test("of a former join does not end the newer one", async () => {
    const client = connect();
    client.follow("b", () => {});
    const stop = client.follow("a", () => {});
    await joined(client);
    stop();
    await eventually(() => server.asked("leave_job").length === 1, "a leave");
    server.answer = (name) => {
      if (name !== "join_job") return undefined;
      server.answer = () => undefined;
      server.emit("left", LEFT);
      return undefined;
    };
    client.follow("a", () => {});
    await joined(client);
    expect(client.job("a").getSnapshot().refusal).toBeNull();
  });

  test.each(["internal_error", "unavailable"])("with %s is asked about again", async (code) => {
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    server.emit("left", { ...LEFT, code });
    await eventually(() => server.asked("join_job").length === 2, "another join");
    await joined(client);
    expect(server.asked("join_job")[1]).toMatchObject({ after: { epoch: "epoch-1" } });
  });

  test("makes room for a job that was one too many", async () => {
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    server.answer = (name) =>
      name === "join_job"
        ? { ok: false, code: "too_many_jobs", message: "leave others first" }
        : undefined;
    client.follow("b", () => {});
    await until(client.job("b"), (job) => job.joined === "refused", "a refusal");
    server.answer = () => undefined;
    server.emit("left", LEFT);
    await joined(client, "b");
  });

  test("that breaks the protocol is reported", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    server.emit("left", { job_id: "a", code: 7 });
    server.emit("left", { ...LEFT, job_id: "unknown" });
    server.say("a", "job_log", { level: "info", message: "one" });
    await until(client.job("a"), (job) => job.logs.length === 1, "a line");
    expect(reported).toHaveBeenCalledOnce();
  });
});

describe("a namespace of the server's own", () => {
  test.each(["/jobs", "/deep/er"])("%s is joined", async (namespace) => {
    await server.stop();
    server = await TestServer.startAt(0, "websocket", namespace);
    const client = connect({ namespace });
    client.follow("a", () => {});
    await joined(client);
  });

  test.each([7, "", "jobs", "/a,b", "/a?b"])("%j cannot be one", (namespace) => {
    const options = { namespace } as Partial<JobClientOptions>;
    expect(() => connect(options)).toThrow("namespace");
  });
});

describe("nobody signed in", () => {
  test.each([[null], [undefined], [""]])("is a refusal: %j", async (nothing) => {
    let asked = 0;
    let token: string | null | undefined = nothing;
    const client = connect({
      getToken: () => {
        asked += 1;
        return token;
      },
    });
    client.follow("a", () => {});
    expect(await refused(client)).toMatchObject({
      code: "token_missing",
      message: expect.stringContaining("signed in"),
    });
    await expect(client.result("a")).rejects.toMatchObject({ code: "token_missing" });
    await new Promise((resolve) => setTimeout(resolve, 300)); // as long as several tries take
    expect(asked).toBe(1);
    token = "token";
    client.reconnect();
    await joined(client);
  });

  test("any more ends the connection when the token is renewed", async () => {
    let token: string | null = "token";
    const client = connect({ getToken: async () => token });
    client.follow("a", () => {});
    await joined(client);
    token = null;
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
    expect(await refused(client)).toMatchObject({ code: "token_missing" });
    await eventually(() => server.connections === 0, "no connection");
    expect(client.job("a").getSnapshot().joined).toBe("no");
  });

  test("is not the same as something that is no token", async () => {
    const client = connect({ getToken: () => 7 as unknown as string });
    client.follow("a", () => {});
    const waiting = await until(client.connection, (it) => it.attempts === 2, "tries");
    expect(waiting).toMatchObject({ state: "reconnecting", code: "token_unavailable" });
  });
});

describe("a door that stays shut", () => {
  let door: Server;
  let status = 403;
  let knocks: (string | undefined)[] = [];

  beforeEach(async () => {
    knocks = [];
    door = createServer((request, response) => {
      knocks.push(request.method);
      response.writeHead(status, { "Access-Control-Allow-Origin": "*" }).end();
    });
    door.on("upgrade", (_, socket) => socket.end(`HTTP/1.1 ${status} No\r\n\r\n`));
    await new Promise<void>((resolve) => door.listen(0, "127.0.0.1", resolve));
  });

  afterEach(async () => {
    door.closeAllConnections();
    await new Promise((resolve) => door.close(resolve));
  });

  const url = () => `http://127.0.0.1:${(door.address() as AddressInfo).port}`;

  test.each(["websocket", "polling"] as const)(
    "to an origin is a refusal: %s",
    async (transport) => {
      status = 403;
      const client = connect({ url: url(), transports: [transport] });
      client.follow("a", () => {});
      expect(await refused(client)).toMatchObject({
        code: "forbidden",
        message: "refused (403): is this page's origin allowed?",
      });
    },
  );

  test.each(["websocket", "polling"] as const)("at a wrong path says so: %s", async (transport) => {
    status = 404;
    const client = connect({ url: `${url()}/wrong`, transports: [transport] });
    client.follow("a", () => {});
    const waiting = await until(client.connection, (it) => it.code === "not_found", "a reason");
    expect(waiting.state).toBe("reconnecting");
    expect(waiting.message).toContain("(404): is the url right?");
  });

  // A browser hides the status of a WebSocket's handshake; tests/e2e/browser has one.
  test.each([
    [403, 403],
    [404, 404],
    [400, null], // the answer to a POST without a session: the server would let the page in
  ])("is asked about by a request of its own: %d", async (answered, known) => {
    status = answered;
    vi.stubGlobal("location", new URL("https://app.example.com/page"));
    expect(await probe(url())).toBe(known);
    expect(knocks).toEqual(["POST"]);
  });

  test("is not asked about where there is no page, or no server", async () => {
    expect(await probe(url())).toBeNull();
    expect(knocks).toEqual([]);
    vi.stubGlobal("location", new URL("https://app.example.com/page"));
    expect(await probe("http://127.0.0.1:1")).toBeNull();
  });
});

test("a runtime without FinalizationRegistry and WeakRef has a client that works", async () => {
  vi.stubGlobal("FinalizationRegistry", undefined);
  vi.stubGlobal("WeakRef", undefined);
  const client = connect();
  const stop = client.follow("a", () => {});
  await joined(client);
  expect(client.job("a")).toBe(client.job("a"));
  stop();
  client.follow("a", () => {});
  await joined(client);
});

test("a runtime with WeakRef only has a client that works", async () => {
  vi.stubGlobal("FinalizationRegistry", undefined);
  const client = connect();
  client.follow("a", () => {});
  await joined(client);
});
