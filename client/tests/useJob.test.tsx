// @vitest-environment happy-dom
import { act, cleanup, renderHook } from "@testing-library/react";
import { type ReactElement, type ReactNode, StrictMode } from "react";
import { afterEach, beforeEach, expect, expectTypeOf, test, vi } from "vitest";
import type { Cancellation, Failure } from "../src/index.js";
import {
  type FollowedJob,
  JobcastProvider,
  useCancelJob,
  useJob,
  useJobSocket,
} from "../src/react.js";
import { createFakeJobClient, type FakeJobClient } from "../src/testing.js";

interface Report {
  readonly rows: number;
}

let client: FakeJobClient;

beforeEach(() => {
  client = createFakeJobClient();
});

afterEach(cleanup);

function Within({ children }: { children?: ReactNode }): ReactElement {
  return <JobcastProvider client={client}>{children}</JobcastProvider>;
}

function Strictly({ children }: { children?: ReactNode }): ReactElement {
  return (
    <StrictMode>
      <Within>{children}</Within>
    </StrictMode>
  );
}

/** Render a hook, and count its renders. */
function renderCounted<T>(hook: () => T): { current: () => T; count: () => number } {
  let count = 0;
  const { result } = renderHook(
    () => {
      count += 1;
      return hook();
    },
    { wrapper: Within },
  );
  return { current: () => result.current, count: () => count };
}

test("a component renders only when the selected value changes", () => {
  const job = client.fakeJob("a").status("started").progress(10);
  const { current, count } = renderCounted(() =>
    useJob("a", { select: ({ percentage }) => percentage }),
  );
  const before = count();
  act(() => void job.log("a line").log("another line").progress(10, { message: "still ten" }));
  expect([current(), count()]).toEqual([10, before]);
  act(() => void job.progress(11));
  expect([current(), count()]).toEqual([11, before + 1]);
});

test("a selection of several values is the same object while the values are equal", () => {
  const job = client.fakeJob("a").status("started").progress(10);
  const { current, count } = renderCounted(() =>
    useJob("a", { select: ({ status, percentage }) => ({ status, percentage }) }),
  );
  const [selected, before] = [current(), count()];
  act(() => void job.log("a line"));
  expect(current()).toBe(selected);
  expect(count()).toBe(before);
});

test("selections that are no plain objects are compared by identity", () => {
  const job = client.fakeJob("a").status("started");
  const { current } = renderCounted(() =>
    useJob("a", { select: ({ updatedAt, logs }) => [updatedAt, new Date(logs.length)] }),
  );
  const selected = current();
  act(() => void job.log("a line"));
  expect(current()).not.toBe(selected);
});

test("a new select function takes effect at once", () => {
  client.fakeJob("a").status("started").progress(10, { message: "ten" });
  const { result, rerender } = renderHook(
    ({ select }) => useJob<unknown, unknown>("a", { select }),
    {
      wrapper: Within,
      initialProps: { select: (job: FollowedJob): unknown => job.percentage },
    },
  );
  expect(result.current).toBe(10);
  rerender({ select: (job) => job.message });
  expect(result.current).toBe("ten");
});

test("the status determines the types of the result and of the error", () => {
  client.fakeJob("a").status("started").complete({ rows: 3 });
  const { result } = renderHook(() => useJob<Report>("a"), { wrapper: Within });
  const job = result.current;
  expect(job).toMatchObject({ status: "complete", isDone: true, isLoading: false });
  if (job.status === "complete") {
    expectTypeOf(job.result).toEqualTypeOf<Report>();
    expectTypeOf(job.error).toEqualTypeOf<null>();
    expect(job.result.rows).toBe(3);
  } else if (job.status === "error") {
    expectTypeOf(job.error).toEqualTypeOf<Failure>();
    expectTypeOf(job.result).toEqualTypeOf<null>();
  } else if (job.isDone) {
    expectTypeOf(job.cancellation).toEqualTypeOf<Cancellation>();
    expectTypeOf(job.error).toEqualTypeOf<null>();
  } else {
    expectTypeOf(job.result).toEqualTypeOf<null>();
  }
});

test("onComplete is called once per job, in strict mode and with new functions", () => {
  const seen: unknown[] = [];
  const { rerender } = renderHook(
    ({ id }) => useJob<Report>(id, { onComplete: (result) => seen.push(result) }),
    { wrapper: Strictly, initialProps: { id: "a" } },
  );
  act(() => void client.fakeJob("a").status("started"));
  expect(seen).toEqual([]);
  act(() => void client.fakeJob("a").complete({ rows: 1 }));
  rerender({ id: "a" });
  expect(seen).toEqual([{ rows: 1 }]);
  client.fakeJob("b").complete({ rows: 2 });
  rerender({ id: "b" });
  expect(seen).toEqual([{ rows: 1 }, { rows: 2 }]);
});

test("onError is called although the selected value stays the same", () => {
  const onError = vi.fn();
  const onComplete = vi.fn();
  const { count } = renderCounted(() => useJob("a", { select: () => 0, onError, onComplete }));
  const before = count();
  act(() => void client.fakeJob("a").status("started").fail("the disk is full"));
  const failure = { error: "Error", message: "the disk is full", reason: "failure" };
  expect(onError.mock.calls).toEqual([[failure]]);
  expect(onComplete).not.toHaveBeenCalled();
  expect(count()).toBe(before);
});

test("a job that is not enabled is not followed", () => {
  const { result, rerender } = renderHook(({ enabled }) => useJob("a", { enabled }), {
    wrapper: Within,
    initialProps: { enabled: false },
  });
  expect(result.current).toMatchObject({ phase: "none", isLoading: false, jobId: "" });
  expect(client.fakeJob("a").isFollowed).toBe(false);
  rerender({ enabled: true });
  expect(result.current.phase).toBe("waiting");
  rerender({ enabled: false });
  expect(client.fakeJob("a").isFollowed).toBe(false);
});

test("a job is loading until its state is known", () => {
  client.disconnect("no network");
  const { result } = renderHook(() => useJob("a"), { wrapper: Within });
  expect(result.current).toMatchObject({
    isLoading: true,
    connectionError: { code: "reconnecting", message: "no network" },
  });
  act(() => client.connect());
  expect(result.current).toMatchObject({ isLoading: false, connectionError: null });
});

test("a lost connection is reported, and the last known state stays", () => {
  client.fakeJob("a").status("started").progress(40);
  const { result } = renderHook(() => useJob("a"), { wrapper: Within });
  act(() => client.disconnect());
  expect(result.current).toMatchObject({
    phase: "reconnecting",
    percentage: 40,
    connectionError: { code: "reconnecting", message: "the connection was lost" },
  });
  client.fakeJob("a").progress(90);
  act(() => client.connect());
  expect(result.current).toMatchObject({ phase: "following", percentage: 90 });
});

test("refusals of the connection and of the job have a code and a message", () => {
  const { result } = renderHook(() => useJob("a"), { wrapper: Within });
  act(() => client.refuse("token_expired", "the token has expired"));
  const reason = { code: "token_expired", message: "the token has expired" };
  expect(result.current).toMatchObject({ phase: "refused", refusal: reason });
  expect(result.current.connectionError).toEqual(reason);
  act(() => client.connect());
  act(() => void client.fakeJob("a").refuse("job_not_found", "no such job"));
  expect(result.current).toMatchObject({ phase: "refused", connectionError: null });
  expect(result.current.refusal).toEqual({ code: "job_not_found", message: "no such job" });
});

test("useJobSocket returns what useJob returns", () => {
  client.fakeJob("a").status("started").progress(40);
  const { result } = renderHook(() => [useJob("a"), useJobSocket("a")], { wrapper: Within });
  expect(result.current[0]).toEqual(result.current[1]);
});

test("onCancel is called for a cancelled job, and onError is not", () => {
  const [onCancel, onError] = [vi.fn(), vi.fn()];
  client.fakeJob("a").status("started");
  renderHook(() => useJob("a", { onCancel, onError }), { wrapper: Within });
  act(() => void client.fakeJob("a").cancelled({ by: "ada", message: "wrong file" }));
  expect(onCancel).toHaveBeenCalledExactlyOnceWith({
    by: "ada",
    message: "wrong file",
    reason: "cancelled",
  });
  expect(onError).not.toHaveBeenCalled();
});

test("a job can be cancelled until it is asked to end", () => {
  const { result } = renderHook(() => useJob("a"), { wrapper: Within });
  const seen = [result.current.isCancellable];
  const fake = client.fakeJob("a");
  for (const step of [
    () => fake.status("queued"),
    () => fake.status("started"),
    () => fake.status("cancelling"),
    () => fake.cancelled(),
    () => fake.status("started", { cancellable: false }),
  ]) {
    act(() => void step());
    seen.push(result.current.isCancellable);
  }
  expect(seen).toEqual([false, true, true, false, false, false]);
  expect(result.current).toMatchObject({ status: "started", cancellable: false });
});

test("useCancelJob cancels a job, and returns the answer", async () => {
  client.fakeJob("a").status("started", { terminates: true });
  const { result } = renderHook(() => useCancelJob("a"), { wrapper: Strictly });
  expect(result.current).toMatchObject({ isPending: false, result: null, error: null });
  let sent: unknown;
  act(() => {
    sent = result.current.cancel({ message: "wrong file" });
  });
  expect(result.current.isPending).toBe(true);
  const answer = { outcome: "requested", terminates: true };
  await act(async () => expect(await sent).toEqual(answer));
  expect(result.current).toMatchObject({ isPending: false, result: answer, error: null });
  expect(client.fakeJob("a").cancelRequests).toEqual(["wrong file"]);
});

test("useCancelJob returns a refusal instead of throwing it", async () => {
  client.fakeJob("a").status("started").refuseCancel("rate_limited", "too many requests");
  const { result, rerender } = renderHook(({ id }) => useCancelJob(id), {
    wrapper: Within,
    initialProps: { id: "a" as string | null },
  });
  await act(async () => expect(await result.current.cancel()).toBeNull());
  expect(result.current.error).toMatchObject({ name: "CancelRefused", code: "rate_limited" });
  rerender({ id: null });
  expect(result.current.error).toBeNull();
  await act(async () => expect(await result.current.cancel()).toBeNull());
  expect(result.current).toMatchObject({ isPending: false, error: null });
});

test("two clicks send one request", async () => {
  client.fakeJob("a").status("started");
  const { result } = renderHook(() => useCancelJob("a"), { wrapper: Within });
  await act(async () => {
    const { cancel } = result.current;
    await Promise.all([cancel(), cancel()]);
  });
  expect(client.fakeJob("a").cancelRequests).toEqual([""]);
});
