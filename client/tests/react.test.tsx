// @vitest-environment happy-dom
import { act, cleanup, render, renderHook } from "@testing-library/react";
import { Activity, type ReactElement, type ReactNode, StrictMode } from "react";
import { hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createJobClient, type JobClient, type JobClientOptions } from "../src/index.js";
import {
  JobcastProvider,
  useConnection,
  useJob,
  useJobClient,
  useJobSocket,
  useJobs,
} from "../src/react.js";
import { TestServer } from "./server.js";
import { eventually, until } from "./waiting.js";

let server: TestServer;
let client: JobClient;

beforeEach(async () => {
  server = await TestServer.start();
  client = createJobClient({ url: server.url, getToken: () => "token" });
});

afterEach(async () => {
  cleanup();
  client.close();
  await server.stop();
});

function Within({ children }: { children?: ReactNode }): ReactElement {
  return <JobcastProvider client={client}>{children}</JobcastProvider>;
}

/** Let React render until a condition is met. */
const settled = (poll: () => unknown, what: string) =>
  eventually(async () => {
    await act(() => new Promise((resolve) => setTimeout(resolve, 5)));
    return poll();
  }, what);

test("useJobSocket returns the state of the job", async () => {
  server.publish("a", "job_status", { status: "started", run: 1 });
  server.publish("a", "job_progress", {
    percentage: 40,
    message: "halfway",
    stage: "read",
    rate: 2,
    eta: 3,
  });
  const { result } = renderHook(() => useJobSocket("a"), { wrapper: Within });
  expect(result.current).toEqual({
    phase: "connecting",
    progress: null,
    percentage: null,
    status: "pending",
    message: null,
    stage: null,
    rate: null,
    eta: null,
    logs: [],
    gaps: [],
    result: null,
    error: null,
    connection: "idle",
    refusal: null,
    jobId: "a",
    joined: "no",
    isLoading: true,
    isDone: false,
    isCancellable: false,
    connectionError: null,
    task: null,
    title: null,
    tags: [],
    queue: null,
    worker: null,
    parent: null,
    owner: null,
    createdAt: null,
    attempt: 1,
    run: null,
    current: null,
    total: null,
    retry: null,
    droppedLogs: 0,
    history: [],
    queuedAt: null,
    startedAt: null,
    endedAt: null,
    updatedAt: null,
    cancellable: true,
    cancellation: null,
    terminates: false,
  });
  await settled(() => result.current.progress === 40, "progress");
  expect(result.current).toMatchObject({
    status: "started",
    message: "halfway",
    stage: "read",
    rate: 2,
    eta: 3,
    connection: "connected",
  });
  server.publish("a", "job_log", { level: "info", message: "a line" });
  server.publish("a", "job_complete", { result: { rows: 3 } });
  await settled(() => result.current.status === "complete", "the end");
  expect(result.current.result).toEqual({ rows: 3 });
  expect(result.current.logs.map((line) => line.message)).toEqual(["a line"]);
});

test("useJobSocket returns the same object for the same state", async () => {
  const { result, rerender } = renderHook(() => useJobSocket("a"), { wrapper: Within });
  await settled(() => result.current.connection === "connected", "a connection");
  await act(
    async () => void (await until(client.job("a"), (job) => job.joined === "yes", "a join")),
  );
  const before = result.current;
  rerender();
  expect(result.current).toBe(before);
});

test("a component in strict mode joins and leaves once", async () => {
  const { unmount } = render(
    <StrictMode>
      <Within>
        <Shown jobId="a" />
        <Shown jobId="a" />
      </Within>
    </StrictMode>,
  );
  await act(
    async () => void (await until(client.job("a"), (job) => job.joined === "yes", "a join")),
  );
  expect(server.requests).toEqual([["join_job", { job_id: "a" }]]);
  unmount();
  await eventually(() => server.requests.length === 2, "a leave");
  expect(server.requests[1]).toEqual(["leave_job", { job_id: "a" }]);
});

test("useJobSocket follows another job when the id changes, and none without an id", async () => {
  server.publish("a", "job_progress", { percentage: 10 });
  server.publish("b", "job_progress", { percentage: 20 });
  const { result, rerender } = renderHook(({ id }) => useJobSocket(id), {
    wrapper: Within,
    initialProps: { id: "a" as string | null },
  });
  await settled(() => result.current.progress === 10, "a");
  rerender({ id: "b" });
  expect(result.current.progress).toBeNull();
  await settled(() => result.current.progress === 20, "b");
  rerender({ id: "" });
  expect(result.current).toMatchObject({ progress: null, status: "pending" });
  rerender({ id: null });
  expect(result.current).toMatchObject({ progress: null, status: "pending" });
  await eventually(() => server.requestsNamed("leave_job").length === 2, "leaves");
  expect(server.requestsNamed("leave_job")).toEqual([{ job_id: "a" }, { job_id: "b" }]);
});

test("useJobSocket returns the refusal of a job", async () => {
  server.answer = (name) =>
    name === "join_job" ? { ok: false, code: "job_not_found", message: "no such job" } : undefined;
  const { result } = renderHook(() => useJobSocket("a"), { wrapper: Within });
  await settled(() => result.current.refusal, "a refusal");
  expect(result.current.refusal).toEqual({ code: "job_not_found", message: "no such job" });
});

test("useJobSocket returns the refusal of the connection until it is accepted", async () => {
  server.refuse = () =>
    Object.assign(new Error("refused"), { data: { code: "token_key", message: "unknown key" } });
  const { result } = renderHook(() => useJobSocket("a"), { wrapper: Within });
  await settled(() => result.current.phase === "refused", "a refusal");
  expect(result.current).toMatchObject({
    connection: "refused",
    refusal: { code: "token_key", message: "unknown key" },
  });
  server.refuse = () => undefined;
  act(() => client.reconnect());
  await settled(() => result.current.phase === "waiting", "a join");
  expect(result.current.refusal).toBeNull();
});

test("useJobSocket returns a refusal if no user is signed in", async () => {
  const other = createJobClient({ url: server.url, getToken: () => null });
  const { result } = renderHook(() => useJobSocket("a"), {
    wrapper: ({ children }) => <JobcastProvider client={other}>{children}</JobcastProvider>,
  });
  await settled(() => result.current.refusal?.code === "token_missing", "a refusal");
  other.close();
});

test("the phase of useJobSocket distinguishes the kinds of pending", async () => {
  const { result, rerender } = renderHook(({ id }) => useJobSocket(id), {
    wrapper: Within,
    initialProps: { id: null as string | null },
  });
  expect(result.current).toMatchObject({ status: "pending", phase: "none", refusal: null });
  rerender({ id: "a" });
  expect(result.current).toMatchObject({ status: "pending", phase: "connecting" });
  await settled(() => result.current.phase === "waiting", "a join");
  expect(result.current.status).toBe("pending");
  server.publish("a", "job_status", { status: "queued" });
  await settled(() => result.current.phase === "following", "an event");
  const { port } = server;
  await server.stop();
  await settled(() => result.current.phase === "reconnecting", "a loss");
  expect(result.current.status).toBe("queued");
  server = await TestServer.startAt(port);
  server.answer = (name) =>
    name === "join_job" ? { ok: false, code: "job_not_found", message: "no such job" } : undefined;
  await settled(() => result.current.phase === "refused", "a refusal");
  act(() => client.close());
  await settled(() => result.current.connection === "closed", "the end");
});

test("useJobs renders at most once per frame for several jobs", async () => {
  const ids = Array.from({ length: 20 }, (_, n) => `job-${n}`);
  let renders = 0;
  const { result } = renderHook(
    () => {
      renders += 1;
      return useJobs([...ids, "job-0"]);
    },
    { wrapper: Within },
  );
  await settled(() => result.current.every((job) => job.joined === "yes"), "20 joins");
  expect(server.requestsNamed("join_job")).toHaveLength(20);
  const frames = vi.spyOn(globalThis, "requestAnimationFrame");
  renders = 0;
  for (let n = 1; n <= 100; n += 1) {
    for (const id of ids) {
      server.publish(id, "job_progress", { percentage: n });
    }
  }
  await settled(() => result.current.every((job) => job.percentage === 100), "2000 events");
  expect(renders).toBeLessThanOrEqual(frames.mock.calls.length);
  expect(renders).toBeLessThan(200);
  expect(result.current[20]).toBe(result.current[0]);
  const before = result.current;
  server.publish("job-3", "job_progress", { percentage: 7 });
  await settled(() => result.current[3]?.percentage === 7, "one more");
  expect(result.current[4]).toBe(before[4]);
});

test("useJobs joins and leaves only the ids that change", async () => {
  const { result, rerender } = renderHook(({ ids }) => useJobs(ids), {
    wrapper: Within,
    initialProps: { ids: ["a", "b"] },
  });
  await settled(() => result.current.every((job) => job.joined === "yes"), "joins");
  rerender({ ids: ["b", "c"] });
  await settled(() => result.current.every((job) => job.joined === "yes"), "another join");
  await eventually(() => server.requestsNamed("leave_job").length > 0, "a leave");
  expect(server.requestsNamed("join_job").map((request) => request.job_id)).toEqual([
    "a",
    "b",
    "c",
  ]);
  expect(server.requestsNamed("leave_job")).toEqual([{ job_id: "a" }]);
  rerender({ ids: [] });
  expect(result.current).toEqual([]);
});

test("server rendering shows a pending job, and hydration raises no warning", async () => {
  const errors = vi.spyOn(console, "error");
  const page = (
    <JobcastProvider options={{ url: server.url, getToken: () => "token" }}>
      <Shown jobId="a" />
      <Connected />
    </JobcastProvider>
  );
  const html = renderToString(page);
  expect(html).toContain("pending");
  expect(server.connections).toBe(0);
  server.publish("a", "job_status", { status: "started", run: 1 });
  const container = document.createElement("div");
  container.innerHTML = html;
  const root = await act(async () => hydrateRoot(container, page));
  await settled(() => container.textContent?.includes("started"), "a job");
  act(() => root.unmount());
  await eventually(() => server.connections === 0, "no connection");
  expect(errors).not.toHaveBeenCalled();
});

test("a provider with options creates one client, even in strict mode, and closes it", async () => {
  const seen = new Set<JobClient>();
  let token = "first";
  const page = () => (
    <StrictMode>
      <JobcastProvider options={{ url: server.url, getToken: () => token }}>
        <Probe seen={seen} />
        <Shown jobId="a" />
      </JobcastProvider>
    </StrictMode>
  );
  const { container, rerender, unmount } = render(page());
  await settled(() => container.textContent?.includes("connected"), "a connection");
  expect(server.tokens).toEqual(["first"]);
  token = "second";
  rerender(page());
  await act(async () => server.drop("server"));
  await settled(() => server.tokens.length === 2, "another connection");
  expect(server.tokens[1]).toBe("second");
  await settled(() => container.textContent?.includes("connected"), "a connection");
  unmount();
  await eventually(() => server.connections === 0, "no connection");
  const closed = [...seen].filter((it) => it.connection.getSnapshot().state === "closed");
  expect(closed).toHaveLength(1);
});

test("a hidden tree has no connection, and a visible one connects again", async () => {
  const page = (mode: "visible" | "hidden") => (
    <Activity mode={mode}>
      <JobcastProvider options={{ url: server.url, getToken: () => "token" }}>
        <Shown jobId="a" />
      </JobcastProvider>
    </Activity>
  );
  const { container, rerender } = render(page("visible"));
  await settled(() => server.connections === 1, "a connection");
  rerender(page("hidden"));
  await settled(() => server.connections === 0, "no connection");
  rerender(page("visible"));
  server.publish("a", "job_status", { status: "started", run: 1 });
  await settled(() => container.textContent?.includes("started"), "a job");
});

test("a provider rejects invalid options at once", () => {
  vi.spyOn(console, "error").mockImplementation(() => {});
  const given = (options: unknown) =>
    render(<JobcastProvider options={options as JobClientOptions} />);
  expect(() => given({ url: server.url })).toThrow("getToken");
  expect(() => given({ getToken: () => "token", logLimit: -1 })).toThrow("logLimit");
  expect(() => given(undefined)).toThrow("options");
});

test("the hooks throw without a provider", () => {
  vi.spyOn(console, "error").mockImplementation(() => {});
  expect(() => renderHook(() => useConnection())).toThrow("<JobcastProvider>");
});

function Shown({ jobId }: { jobId: string }): ReactElement {
  const job = useJob(jobId);
  return (
    <p>
      {job.status} {job.percentage}
    </p>
  );
}

function Probe({ seen }: { seen: Set<JobClient> }): ReactElement {
  seen.add(useJobClient());
  return <Connected />;
}

function Connected(): ReactElement {
  return <i>{useConnection().state}</i>;
}
