/** Temporary refusals, revoked permissions, missing tokens, and servers that reject the handshake. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { MAX_RETRY_AFTER, retryDelay } from "../src/backoff.js";
import { probeStatus } from "../src/handshake.js";
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
const LEFT = { job_id: "a", code: "job_not_found", message: "no such job" };

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

/** Refuse the first requests of a name. Returns the arrival times of all of them. */
function refuseFirst(name: string, times = 2): number[] {
  const arrivals: number[] = [];
  server.answer = (request) => {
    if (request !== name) return undefined;
    arrivals.push(performance.now());
    return arrivals.length <= times ? RATE_LIMITED : undefined;
  };
  return arrivals;
}

function expectDelays(arrivals: readonly number[]): void {
  const delays = arrivals.slice(1).map((at, index) => at - (arrivals[index] as number));
  // A Node timer may fire a millisecond early.
  expect(Math.min(...delays)).toBeGreaterThanOrEqual(RETRY_AFTER * 1000 - 2);
}

describe("a rate-limited request", () => {
  test("a join is sent again after retry_after", async () => {
    const arrivals = refuseFirst("join_job");
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    expect(arrivals).toHaveLength(3);
    expectDelays(arrivals);
  });

  test("a leave is sent again after retry_after", async () => {
    const arrivals = refuseFirst("leave_job");
    const client = connect();
    const stop = client.follow("a", () => {});
    await joined(client);
    stop();
    await eventually(() => arrivals.length === 3, "an accepted leave");
    expectDelays(arrivals);
  });

  test("a token refresh is sent again after retry_after", async () => {
    const arrivals = refuseFirst("refresh_token", 1);
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
    await eventually(() => arrivals.length === 2, "an accepted refresh");
    expectDelays(arrivals);
  });

  test("a leave is not sent again once the job is followed again", async () => {
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

  test("a rate-limited connection is retried", async () => {
    let attempts = 0;
    server.refuse = () => {
      attempts += 1;
      const { code, retry_after } = RATE_LIMITED;
      return attempts > 2
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
    [1e300, MAX_RETRY_AFTER, MAX_RETRY_AFTER * 1.25],
    [0, 50, 100],
    [undefined, 50, 100],
  ])("retry_after %s gives a delay of %d to %d ms", (retry_after, minimum, maximum) => {
    const refusal = retry_after === undefined ? {} : { retry_after };
    expect(retryDelay(refusal, 0, 0)).toBe(minimum);
    expect(retryDelay(refusal, 0, 1)).toBe(maximum);
  });
});

describe("a join that the server ends", () => {
  test("refuses the job for all its followers", async () => {
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
    // The client ignores further events of that job.
    server.publish("a", "job_log", { level: "info", message: "secret" });
    server.publish("b", "job_log", { level: "info", message: "mine" });
    await until(client.job("b"), (job) => job.logs.length === 1, "a line");
    expect(client.job("a").getSnapshot().logs).toEqual([]);
    client.reconnect();
    await joined(client);
  });

  test("does not affect a newer join of the same job", async () => {
    const client = connect();
    client.follow("b", () => {});
    const stop = client.follow("a", () => {});
    await joined(client);
    stop();
    await eventually(() => server.requestsNamed("leave_job").length === 1, "a leave");
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

  test.each(["internal_error", "unavailable"])("is joined again after %s", async (code) => {
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    server.emit("left", { ...LEFT, code });
    await eventually(() => server.requestsNamed("join_job").length === 2, "another join");
    await joined(client);
    expect(server.requestsNamed("join_job")[1]).toMatchObject({ after: { epoch: "epoch-1" } });
  });

  test("makes room for a job that exceeded the limit", async () => {
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

  test("is reported if the message violates the protocol", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const client = connect();
    client.follow("a", () => {});
    await joined(client);
    server.emit("left", { job_id: "a", code: 7 });
    server.emit("left", { ...LEFT, job_id: "unknown" });
    server.publish("a", "job_log", { level: "info", message: "one" });
    await until(client.job("a"), (job) => job.logs.length === 1, "a line");
    expect(reported).toHaveBeenCalledOnce();
  });
});

describe("the namespace option", () => {
  test.each(["/jobs", "/deep/er"])("%s is connected to", async (namespace) => {
    await server.stop();
    server = await TestServer.startAt(0, "websocket", namespace);
    const client = connect({ namespace });
    client.follow("a", () => {});
    await joined(client);
  });

  test.each([7, "", "jobs", "/a,b", "/a?b"])("%j is rejected", (namespace) => {
    const options = { namespace } as Partial<JobClientOptions>;
    expect(() => connect(options)).toThrow("namespace");
  });
});

describe("a missing token", () => {
  test.each([[null], [undefined], [""]])("%j refuses the connection", async (missing) => {
    let calls = 0;
    let token: string | null | undefined = missing;
    const client = connect({
      getToken: () => {
        calls += 1;
        return token;
      },
    });
    client.follow("a", () => {});
    expect(await refused(client)).toMatchObject({
      code: "token_missing",
      message: expect.stringContaining("signed in"),
    });
    await expect(client.result("a")).rejects.toMatchObject({ code: "token_missing" });
    await new Promise((resolve) => setTimeout(resolve, 300)); // as long as several attempts take
    expect(calls).toBe(1);
    token = "token";
    client.reconnect();
    await joined(client);
  });

  test("closes the connection when the token is to be renewed", async () => {
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

  test("differs from an invalid token, which is retried", async () => {
    const client = connect({ getToken: () => 7 as unknown as string });
    client.follow("a", () => {});
    const waiting = await until(client.connection, (it) => it.attempts === 2, "attempts");
    expect(waiting).toMatchObject({ state: "reconnecting", code: "token_unavailable" });
  });
});

describe("a server that rejects the handshake", () => {
  let rejecting: Server;
  let status = 403;
  let body = "";
  let methods: (string | undefined)[] = [];

  beforeEach(async () => {
    methods = [];
    body = "";
    rejecting = createServer((request, response) => {
      methods.push(request.method);
      response.writeHead(status, { "Access-Control-Allow-Origin": "*" }).end(body);
    });
    rejecting.on("upgrade", (_, socket) => socket.end(`HTTP/1.1 ${status} No\r\n\r\n`));
    await new Promise<void>((resolve) => rejecting.listen(0, "127.0.0.1", resolve));
  });

  afterEach(async () => {
    rejecting.closeAllConnections();
    await new Promise((resolve) => rejecting.close(resolve));
  });

  const url = () => `http://127.0.0.1:${(rejecting.address() as AddressInfo).port}`;

  test.each(["websocket", "polling"] as const)(
    "refuses the connection after 403: %s",
    async (transport) => {
      status = 403;
      const client = connect({ url: url(), transports: [transport] });
      client.follow("a", () => {});
      expect(await refused(client)).toMatchObject({
        code: "forbidden",
        message: expect.stringContaining("JOBCAST_CORS_ORIGINS"),
      });
    },
  );

  test.each(["websocket", "polling"] as const)(
    "reports a wrong path after 404: %s",
    async (transport) => {
      status = 404;
      const client = connect({ url: `${url()}/wrong`, transports: [transport] });
      client.follow("a", () => {});
      const waiting = await until(client.connection, (it) => it.code === "not_found", "a reason");
      expect(waiting.state).toBe("reconnecting");
      expect(waiting.message).toContain("(404): check the url option");
    },
  );

  test.each([
    ["websocket", 503, "unavailable"],
    ["polling", 503, "unavailable"],
    ["websocket", 429, "too_many_connections"],
    ["polling", 429, "too_many_connections"],
  ] as const)(
    "reports a server that accepts no connection now: %s, %d",
    async (transport, answered, code) => {
      status = answered;
      const client = connect({ url: url(), transports: [transport] });
      client.follow("a", () => {});
      const waiting = await until(client.connection, (it) => it.code === code, "a reason");
      expect(waiting).toMatchObject({
        state: "reconnecting",
        message: expect.stringContaining(`(${answered})`),
      });
    },
  );

  // A browser hides the status of a WebSocket handshake; tests/e2e/browser covers that.
  test("is probed with a request that tells whether it accepts the page", async () => {
    status = 400;
    body = '"Invalid session None"';
    vi.stubGlobal("location", new URL("https://app.example.com/page"));
    expect(await probeStatus(url(), "websocket")).toBe("accepted");
    body = '"https://app.example.com is not an accepted origin."';
    expect(await probeStatus(url(), "websocket")).toBe(400);
  });

  test.each([400, 403, 404])("is probed with a request that yields %d", async (answered) => {
    status = answered;
    vi.stubGlobal("location", new URL("https://app.example.com/page"));
    expect(await probeStatus(url(), "websocket")).toBe(answered);
    expect(methods).toEqual(["POST"]);
  });

  test("is not probed outside of a page, and an unreachable server yields null", async () => {
    expect(await probeStatus(url(), "websocket")).toBeNull();
    expect(methods).toEqual([]);
    vi.stubGlobal("location", new URL("https://app.example.com/page"));
    expect(await probeStatus("http://127.0.0.1:1", "websocket")).toBeNull();
  });
});

// The globals are missing only while the client uses them: Node's own fetch needs them later.
test("the client works without FinalizationRegistry and WeakRef", async () => {
  vi.stubGlobal("FinalizationRegistry", undefined);
  vi.stubGlobal("WeakRef", undefined);
  const client = connect();
  const stop = client.follow("a", () => {});
  expect(client.job("a")).toBe(client.job("a"));
  vi.unstubAllGlobals();
  await joined(client);
  stop();
  client.follow("a", () => {});
  await joined(client);
});

test("the client works with WeakRef and without FinalizationRegistry", async () => {
  vi.stubGlobal("FinalizationRegistry", undefined);
  const client = connect();
  client.follow("a", () => {});
  await joined(client);
});
