// @vitest-environment happy-dom
import { act, cleanup, renderHook } from "@testing-library/react";
import { type ReactElement, type ReactNode, StrictMode } from "react";
import { hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, expect, expectTypeOf, test } from "vitest";
import { createJobClient, type JobState } from "../src/index.js";
import { type FeedQuery, type FeedState, JobcastProvider, useJobs } from "../src/react.js";
import { createFakeJobClient, type FakeJobClient } from "../src/testing.js";
import { TestServer } from "./server.js";
import { eventually } from "./waiting.js";

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

function List({ query }: { query: FeedQuery }): ReactElement {
  const { jobs, status } = useJobs(query);
  return <p>{`${status}: ${jobs.map(({ jobId }) => jobId).join(" ")}`}</p>;
}

/** Render the hook in strict mode, and count its renders. */
function renderFeed(query: FeedQuery, wrapper: typeof Within = Strictly) {
  const renders: FeedState[] = [];
  const { result, rerender, unmount } = renderHook(
    (query: FeedQuery) => {
      const state = useJobs(query);
      renders.push(state);
      return state;
    },
    { wrapper, initialProps: query },
  );
  return { result, rerender, unmount, renders };
}

const ids = ({ jobs }: FeedState): string => jobs.map(({ jobId }) => jobId).join(" ");

test("a component shows the jobs of a feed, and leaves the feed when it is unmounted", async () => {
  const feed = client.fakeFeed("mine").put("a").put("b", { status: "started", percentage: 40 });
  const { result, unmount } = renderFeed({ feed: "mine" });
  expect(result.current).toMatchObject({ status: "live", total: 2, hasMore: false, error: null });
  expect(ids(result.current)).toBe("b a");
  expect(result.current.jobs[0]).toMatchObject({ status: "started", percentage: 40, attempt: 1 });
  const [, unchanged] = result.current.jobs;
  act(() => void feed.put("b", { percentage: 50, message: "halfway" }).put("c"));
  expect(ids(result.current)).toBe("c b a");
  expect(result.current.jobs[1]).toMatchObject({ percentage: 50, message: "halfway" });
  expect(result.current.jobs[2]).toBe(unchanged);
  act(() => void feed.remove("c"));
  expect(ids(result.current)).toBe("b a");
  expect(feed.isFollowed).toBe(true);
  unmount();
  await Promise.resolve();
  expect(feed.isFollowed).toBe(false);
});

test("an equal query on each render is the same feed", () => {
  client.fakeFeed("mine").put("a");
  const { result, rerender } = renderFeed({ feed: "mine", status: ["queued"], limit: 5 });
  const before = result.current;
  rerender({ feed: "mine", limit: 5, status: ["queued"], tag: undefined });
  expect(result.current).toBe(before);
});

test("another filter takes effect at once, and another feed too", async () => {
  client.fakeFeed("mine").put("a", { status: "error" }).put("b", { status: "started" });
  const tagged = client.fakeFeed("tag:x").put("c");
  const { result, rerender } = renderFeed({ feed: "mine", status: "running" });
  expect(ids(result.current)).toBe("b");
  await act(async () => rerender({ feed: "mine", status: "failed" }));
  expect(ids(result.current)).toBe("a");
  expect(result.current).toMatchObject({ status: "live", total: 1 });
  await act(async () => rerender({ feed: "tag:x" }));
  expect(ids(result.current)).toBe("c");
  expect(client.fakeFeed("mine").isFollowed).toBe(false);
  await act(async () => rerender({ feed: null }));
  expect(result.current).toMatchObject({ feed: "", status: "none", jobs: [] });
  expect(tagged.isFollowed).toBe(false);
});

test("two components with different filters show their jobs of one feed", () => {
  const feed = client.fakeFeed("mine").put("a", { status: "started" }).put("b");
  const running = renderFeed({ feed: "mine", status: "running" }, Within);
  const queued = renderFeed({ feed: "mine", status: "queued" }, Within);
  expect([ids(running.result.current), ids(queued.result.current)]).toEqual(["a", "b"]);
  const count = queued.renders.length;
  act(() => void feed.put("a", { percentage: 1 }));
  expect(running.result.current.jobs[0]?.percentage).toBe(1);
  expect(queued.renders).toHaveLength(count);
  act(() => void feed.put("b", { status: "started" }));
  expect([ids(running.result.current), ids(queued.result.current)]).toEqual(["b a", ""]);
});

test("loadMore shows older jobs", () => {
  const feed = client.fakeFeed("mine").put("a").put("b").put("c");
  const { result } = renderFeed({ feed: "mine", limit: 2 });
  expect(ids(result.current)).toBe("c b");
  expect(result.current).toMatchObject({ hasMore: true, total: 3 });
  act(() => result.current.loadMore());
  expect(ids(result.current)).toBe("c b a");
  expect(result.current).toMatchObject({ hasMore: false, isLoadingMore: false });
  act(() => void feed.put("d").put("e"));
  expect(ids(result.current)).toBe("e d c b");
});

test("the list stays while the connection is lost, and a refusal has its reason", () => {
  const feed = client.fakeFeed("mine").put("a");
  const { result } = renderFeed({ feed: "mine" });
  const { jobs } = result.current;
  act(() => client.disconnect("no network"));
  feed.put("b");
  expect(result.current).toMatchObject({
    status: "reconnecting",
    error: { message: "no network" },
  });
  expect(result.current.jobs).toBe(jobs);
  act(() => client.connect());
  expect(ids(result.current)).toBe("b a");
  expect(result.current.jobs[1]).toBe(jobs[0]);
  act(() => client.refuse("token_expired", "too late"));
  expect(result.current).toMatchObject({ status: "refused", error: { code: "token_expired" } });
  act(() => client.connect());
  act(() => void feed.refuse("feed_not_allowed", "not yours"));
  expect(result.current).toMatchObject({
    status: "refused",
    jobs: [],
    error: { code: "feed_not_allowed", message: "not yours" },
  });
});

test("server rendering has no jobs, and hydration shows them", async () => {
  const feed = client.fakeFeed("mine").put("a");
  const page = (
    <Within>
      <List query={{ feed: "mine" }} />
    </Within>
  );
  const root = document.createElement("div");
  root.innerHTML = renderToString(page);
  expect(root.textContent).toBe("connecting: ");
  expect(feed.isFollowed).toBe(false);
  const hydrated = await act(async () => hydrateRoot(root, page));
  expect(root.textContent).toBe("live: a");
  act(() => hydrated.unmount());
});

function Typed(): null {
  expectTypeOf(useJobs(["a"])).toEqualTypeOf<readonly JobState[]>();
  expectTypeOf(useJobs({ feed: "mine" })).toEqualTypeOf<FeedState>();
  return null;
}

test("the argument determines the type of the value", () => {
  const page = (
    <Within>
      <Typed />
    </Within>
  );
  expect(renderToString(page)).toBe("");
});

test("components that mount together join a feed of a server once, also in strict mode", async () => {
  const server = await TestServer.start();
  const real = createJobClient({ url: server.url, getToken: () => "token" });
  const wrapper = ({ children }: { children?: ReactNode }) => (
    <StrictMode>
      <JobcastProvider client={real}>{children}</JobcastProvider>
    </StrictMode>
  );
  const { result, unmount } = renderHook(
    () => [useJobs({ feed: "mine", status: "running" }), useJobs({ feed: "mine", limit: 10 })],
    { wrapper },
  );
  await eventually(async () => {
    await act(() => new Promise((resolve) => setTimeout(resolve, 5)));
    return result.current.every(({ status }) => status === "live");
  }, "live lists");
  unmount();
  await eventually(() => server.requestsNamed("leave_feed").length === 1, "a leave");
  expect(server.requestsNamed("join_feed")).toEqual([{ feed: "mine", limit: 100 }]);
  real.close();
  await server.stop();
});
