/** Feeds against a simulated server, and the parts of a feed on their own. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Feed } from "../src/feed.js";
import { covers, filterOf, matches, unionOf } from "../src/feedFilter.js";
import { createJobClient, type FeedState, isFeed, type JobClient } from "../src/index.js";
import { JobList } from "../src/jobList.js";
import { compareSummaries, type JobSummary, newerSummary, toSummary } from "../src/jobSummary.js";
import type { JobSummaryMessage } from "../src/protocol.js";
import { TestServer } from "./server.js";
import { eventually, until } from "./waiting.js";

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
});

function connect(): JobClient {
  const client = createJobClient({ url: server.url, getToken: () => "token" });
  clients.push(client);
  return client;
}

/** Return the summary of a job that was created at this second. */
function job(second: number, fields: Partial<JobSummaryMessage> = {}): JobSummaryMessage {
  const created_at = new Date(Date.UTC(2026, 0, 1) + second * 1000).toISOString();
  return { job_id: `job-${second}`, epoch: "e1", seq: 1, status: "started", created_at, ...fields };
}

const jobs = (count: number): JobSummaryMessage[] =>
  Array.from({ length: count }, (_, index) => job(index));
const ids = ({ jobs }: Pick<FeedState, "jobs">): string[] => jobs.map(({ jobId }) => jobId);
const isLive = ({ status }: FeedState): boolean => status === "live";
const joins = (): Record<string, unknown>[] => server.requestsNamed("join_feed");

describe("a feed", () => {
  test("shows its jobs, the newest first, and each change", async () => {
    server.setFeed("mine", [job(1), job(3), job(2, { title: "two", tags: ["a"] })]);
    const feed = connect().feed("mine");
    expect(feed.getSnapshot()).toMatchObject({ status: "connecting", jobs: [], total: null });
    const state = await until(feed, isLive, "a list");
    expect(ids(state)).toEqual(["job-3", "job-2", "job-1"]);
    expect(state).toMatchObject({ feed: "mine", total: 3, hasMore: false, error: null });
    expect(state.jobs[1]).toEqual({
      jobId: "job-2",
      epoch: "e1",
      seq: 1,
      status: "started",
      task: null,
      title: "two",
      tags: ["a"],
      queue: null,
      worker: null,
      parent: null,
      owner: null,
      createdAt: "2026-01-01T00:00:02.000Z",
      startedAt: null,
      endedAt: null,
      attempt: 1,
      percentage: null,
      message: null,
      reason: null,
      cancellable: true,
      terminates: false,
    });
    const changed = until(feed, (state) => !ids(state).includes("job-3"), "a change");
    server.emit("feed_job", { feed: "mine", ...job(4) });
    server.emit("feed_gone", { feed: "mine", job_id: "job-3" });
    expect(ids(await changed)).toEqual(["job-4", "job-2", "job-1"]);
    expect(joins()).toEqual([{ feed: "mine", limit: 100 }]);
  });

  test("is left when the last subscriber unsubscribes, and joined again by the next one", async () => {
    server.setFeed("mine", jobs(2));
    const client = connect();
    const feed = client.feed("mine");
    const stops = [feed.subscribe(() => {}), client.feed("mine").subscribe(() => {})];
    await until(feed, isLive, "a list");
    stops[0]?.();
    stops[1]?.();
    await eventually(() => server.requestsNamed("leave_feed").length === 1, "a leave");
    expect(feed.getSnapshot()).toMatchObject({ status: "connecting", jobs: [] });
    await until(feed, isLive, "a list again");
    expect(joins()).toHaveLength(2);
  });

  test("stays joined if a subscriber returns in the same tick", async () => {
    const feed = connect().feed("mine");
    const stop = feed.subscribe(() => {});
    await until(feed, isLive, "a list");
    stop();
    const again = feed.subscribe(() => {});
    server.emit("feed_job", { feed: "mine", ...job(1) });
    await until(feed, ({ jobs }) => jobs.length === 1, "a job");
    expect(server.requestsNamed("leave_feed")).toEqual([]);
    again();
  });

  test("keeps its list while the connection is lost, and replaces it at once", async () => {
    server.setFeed("mine", jobs(150));
    const feed = connect().feed("mine", { limit: 120 });
    const before = await until(feed, isLive, "a list");
    const seen: FeedState[] = [];
    const stop = feed.subscribe(() => seen.push(feed.getSnapshot()));
    server.setFeed("mine", [...jobs(149), job(149, { seq: 2 }), job(500)]);
    server.drop();
    await until(feed, ({ jobs }) => jobs[0]?.jobId === "job-500", "the new list");
    stop();
    const statuses = [...new Set(seen.map(({ status }) => status))];
    expect(statuses).toEqual(["reconnecting", "live"]);
    for (const state of seen.filter(({ status }) => status === "reconnecting")) {
      expect(state.jobs).toBe(before.jobs);
    }
    const after = feed.getSnapshot();
    expect(after.jobs).toHaveLength(120);
    expect(after.jobs[1]?.seq).toBe(2);
    expect(after.jobs[2]).toBe(before.jobs[1]);
    expect(joins()[1]).toEqual({ feed: "mine", limit: 120 });
  });

  test("loads older jobs", async () => {
    server.setFeed("mine", jobs(250));
    const feed = connect().feed("mine");
    const first = await until(feed, isLive, "a list");
    expect(first).toMatchObject({ total: 250, hasMore: true, isLoadingMore: false });
    expect(first.jobs).toHaveLength(100);
    const stop = feed.subscribe(() => {});
    feed.loadMore();
    feed.loadMore(); // without effect while jobs are on their way
    expect(feed.getSnapshot().isLoadingMore).toBe(true);
    const second = await until(feed, ({ jobs }) => jobs.length === 200, "older jobs");
    expect(second).toMatchObject({ hasMore: true, isLoadingMore: false });
    expect(second.jobs[0]).toBe(first.jobs[0]);
    second.loadMore();
    const third = await until(feed, ({ jobs }) => jobs.length === 250, "all jobs");
    expect(third).toMatchObject({ hasMore: false, total: 250, isLoadingMore: false });
    expect(ids(third)).toEqual(
      jobs(250)
        .map(({ job_id }) => job_id)
        .reverse(),
    );
    third.loadMore();
    expect(feed.getSnapshot()).toBe(third);
    expect(joins().slice(1)).toEqual([
      { feed: "mine", after: "100", limit: 100 },
      { feed: "mine", after: "200", limit: 100 },
    ]);
    stop();
  });

  test("shows as many jobs as the limit when new ones arrive", async () => {
    server.setFeed("mine", jobs(3));
    const feed = connect().feed("mine", { limit: 2 });
    await until(feed, isLive, "a list");
    const changed = until(feed, ({ jobs }) => jobs[0]?.jobId === "job-9", "a new job");
    server.emit("feed_job", { feed: "mine", ...job(9) });
    const state = await changed;
    expect(ids(state)).toEqual(["job-9", "job-2"]);
    expect(state).toMatchObject({ hasMore: true, total: 4 });
  });

  test("requests older jobs when shown ones have left", async () => {
    server.setFeed("mine", jobs(3));
    const feed = connect().feed("mine", { limit: 2 });
    await until(feed, isLive, "a list");
    const filled = until(feed, (state) => ids(state).join() === "job-2,job-0", "another job");
    server.emit("feed_gone", { feed: "mine", job_id: "job-1" });
    expect((await filled).hasMore).toBe(false);
  });

  test("that is long is requested in parts, and replaced when it is as long as before", async () => {
    server.setFeed("mine", jobs(2600));
    const feed = connect().feed("mine", { limit: 2500 });
    const stop = feed.subscribe(() => lengths.add(feed.getSnapshot().jobs.length));
    const lengths = new Set<number>();
    await until(feed, ({ jobs }) => jobs.length === 2500, "a list");
    expect(joins().map(({ after, limit }) => [after, limit])).toEqual([
      [undefined, 1000],
      ["1000", 1000],
      ["2000", 500],
    ]);
    server.setFeed("mine", jobs(2700));
    lengths.clear();
    server.drop();
    await until(feed, ({ jobs }) => jobs[0]?.jobId === "job-2699", "the new list");
    expect([...lengths]).toEqual([2500]);
    expect(joins()).toHaveLength(6);
    stop();
  });

  test("ignores an older summary than the shown one", async () => {
    server.setFeed("mine", [job(1, { seq: 5, epoch: "e2", percentage: 50 })]);
    const feed = connect().feed("mine");
    await until(feed, isLive, "a list");
    server.emit("feed_job", { feed: "mine", ...job(1, { seq: 4, epoch: "e2", percentage: 40 }) });
    server.emit("feed_job", { feed: "mine", ...job(1, { seq: 9, epoch: "e1", percentage: 90 }) });
    server.emit("feed_job", { feed: "mine", ...job(2) });
    const state = await until(feed, ({ jobs }) => jobs.length === 2, "another job");
    expect(state.jobs[1]?.percentage).toBe(50);
    server.emit("feed_job", { feed: "mine", ...job(1, { seq: 1, epoch: "e3", percentage: 1 }) });
    await until(feed, ({ jobs }) => jobs[1]?.percentage === 1, "another record");
  });

  test("shows an unknown status as it is, and ignores an invalid message", async () => {
    const reported = vi.spyOn(console, "error").mockImplementation(() => {});
    const feed = connect().feed("mine", { status: "running" });
    const stop = feed.subscribe(() => {});
    await until(feed, isLive, "a list");
    server.emit("feed_job", { feed: "mine", ...job(1), status: 7 });
    server.emit("feed_job", { feed: "mine", ...job(2, { status: "paused" }) });
    const state = await until(feed, ({ jobs }) => jobs.length > 0, "a job");
    expect(state.jobs).toMatchObject([{ jobId: "job-2", status: "paused" }]);
    expect(reported).toHaveBeenCalledOnce();
    stop();
  });
});

describe("two stores of a feed", () => {
  test("share a join for what both show", async () => {
    server.setFeed("mine", [job(1, { status: "error" }), job(2), job(3, { status: "complete" })]);
    const client = connect();
    const running = client.feed("mine", { status: "running" });
    const failed = client.feed("mine", { status: ["failed"], limit: 10 });
    const stops = [running.subscribe(() => {}), failed.subscribe(() => {})];
    expect(ids(await until(running, isLive, "running jobs"))).toEqual(["job-2"]);
    expect(ids(await until(failed, isLive, "failed jobs"))).toEqual(["job-1"]);
    expect(joins()).toEqual([
      { feed: "mine", filter: { status: ["failed", "running"] }, limit: 100 },
    ]);
    const before = running.getSnapshot();
    server.emit("feed_job", { feed: "mine", ...job(1, { status: "error", seq: 2 }) });
    await until(failed, ({ jobs }) => jobs[0]?.seq === 2, "a change");
    expect(running.getSnapshot()).toBe(before);
    stops[1]?.();
    await eventually(() => joins().length === 2, "a narrower join");
    expect(joins()[1]).toEqual({ feed: "mine", filter: { status: ["running"] }, limit: 100 });
    stops[0]?.();
  });

  test("find the older jobs of a narrow filter behind those of a wide one", async () => {
    server.setFeed("mine", [job(0, { status: "error" }), ...jobs(300).slice(1)]);
    const client = connect();
    const stop = client.feed("mine", { limit: 10 }).subscribe(() => {});
    const failed = client.feed("mine", { status: "failed", limit: 10 });
    const state = await until(failed, ({ jobs }) => jobs.length > 0, "the failed job");
    expect(ids(state)).toEqual(["job-0"]);
    expect(state).toMatchObject({ hasMore: false, total: 1 });
    stop();
  });
});

describe("a refused feed", () => {
  test("has the reason, and is joined again by reconnect", async () => {
    server.answer = (name) =>
      name === "join_feed"
        ? { ok: false, code: "feed_not_allowed", message: "not yours" }
        : undefined;
    const client = connect();
    const feed = client.feed("all");
    const stop = feed.subscribe(() => {});
    const state = await until(feed, ({ status }) => status === "refused", "a refusal");
    expect(state.error).toEqual({ code: "feed_not_allowed", message: "not yours" });
    server.answer = () => undefined;
    client.reconnect();
    expect(await until(feed, isLive, "a list")).toMatchObject({ error: null });
    stop();
  });

  test("is retried if the reason is temporary", async () => {
    let refusals = 2;
    server.answer = (name) =>
      name === "join_feed" && refusals-- > 0
        ? { ok: false, code: "rate_limited", message: "slow down", retry_after: 0.01 }
        : undefined;
    await until(connect().feed("mine"), isLive, "a list");
    expect(joins()).toHaveLength(3);
  });

  test("is not live while the server cannot join it with another filter", async () => {
    const client = connect();
    const stop = client.feed("mine", { status: "failed" }).subscribe(() => {});
    const failed = client.feed("mine", { status: "failed" });
    await until(failed, isLive, "a list");
    const answers = [{ ok: false, code: "unavailable", message: "wait" }, null];
    server.answer = (name) => (name === "join_feed" ? answers.shift() : undefined);
    const stopToo = client.feed("mine").subscribe(() => {});
    await until(failed, ({ status }) => status === "reconnecting", "a lost join");
    await eventually(() => joins().length >= 3, "another attempt");
    stopToo();
    stop();
  });

  test("has the reason while the server cannot list its jobs", async () => {
    server.setFeed("mine", jobs(2));
    const refusal = { ok: false, code: "unavailable", message: "the store does not answer" };
    server.answer = (name) => (name === "join_feed" ? refusal : undefined);
    const feed = connect().feed("mine");
    const stop = feed.subscribe(() => {});
    const waiting = await until(feed, ({ error }) => error !== null, "a reason");
    expect(waiting).toMatchObject({
      status: "connecting",
      error: { code: "unavailable", message: "the store does not answer" },
    });
    server.drop("network");
    await until(feed, ({ error }) => error?.code === "reconnecting", "the loss of the connection");
    server.answer = () => undefined;
    expect((await until(feed, isLive, "a list")).error).toBeNull();
    stop();
  });

  test("has no jobs after the right to list it has ended", async () => {
    server.setFeed("all", jobs(2));
    const feed = connect().feed("all");
    await until(feed, isLive, "a list");
    const refused = until(feed, ({ status }) => status === "refused", "a refusal");
    await eventually(() => joins().length > 0 && feed.getSnapshot().status === "live", "a join");
    server.emit("feed_left", { feed: "all", code: "feed_not_allowed", message: "no more" });
    expect(await refused).toMatchObject({ jobs: [], total: null, error: { message: "no more" } });
  });

  test("is joined again if the reason for leaving it is temporary", async () => {
    server.setFeed("all", jobs(2));
    const feed = connect().feed("all");
    const stop = feed.subscribe(() => {});
    await until(feed, isLive, "a list");
    server.emit("feed_left", { feed: "all", code: "unavailable", message: "wait" });
    await eventually(() => joins().length === 2, "another join");
    await until(feed, isLive, "a list again");
    stop();
  });

  test("that exceeds the limit of the connection is joined when another one is left", async () => {
    server.answer = (name, { feed }) =>
      name === "join_feed" && feed === "tag:b" && server.requestsNamed("leave_feed").length === 0
        ? { ok: false, code: "too_many_feeds", message: "too many" }
        : undefined;
    const client = connect();
    const stop = client.feed("tag:a").subscribe(() => {});
    const waiting = client.feed("tag:b");
    const stopToo = waiting.subscribe(() => {});
    await until(waiting, ({ status }) => status === "refused", "a refusal");
    stop();
    await until(waiting, isLive, "a list");
    stopToo();
  });

  test.each(["", "queue:celery", "tag:", `tag:${"x".repeat(129)}`, "tag:a\nb", "owner:"])(
    "with the invalid name %j is never requested",
    async (name) => {
      const client = connect();
      const state = await until(
        client.feed(name),
        ({ status }) => status === "refused",
        "a refusal",
      );
      expect(state.error?.code).toBe("invalid_request");
      expect(isFeed(name)).toBe(false);
      await until(client.feed("mine"), isLive, "a valid feed");
      expect(joins()).toEqual([{ feed: "mine", limit: 100 }]);
    },
  );
});

test("a closed client keeps the list, and follows no feed", async () => {
  server.setFeed("mine", jobs(2));
  const client = connect();
  const feed = client.feed("mine");
  const states: string[] = [];
  feed.subscribe(() => states.push(feed.getSnapshot().status));
  await until(feed, isLive, "a list");
  client.close();
  expect(feed.getSnapshot()).toMatchObject({ status: "closed" });
  expect(feed.getSnapshot().jobs).toHaveLength(2);
  expect(states.at(-1)).toBe("closed");
  feed.subscribe(() => {})();
  expect(server.requestsNamed("join_feed")).toHaveLength(1);
});

test("another user sees no job of the previous one", async () => {
  server.setFeed("mine", jobs(2));
  const feed = connect().feed("mine");
  await until(feed, isLive, "a list");
  const stop = feed.subscribe(() => {});
  server.answer = (name) => {
    if (name === "refresh_token") {
      return { ok: false, code: "token_subject", message: "another user" };
    }
    return name === "join_feed" ? null : undefined;
  };
  server.emit("token_expiring", { expires_at: "2026-01-15T09:30:00Z" });
  await until(feed, ({ jobs }) => jobs.length === 0, "an empty list");
  stop();
});

test.each([
  [{ limit: 0 }, RangeError, "limit"],
  [{ limit: 10_001 }, RangeError, "limit"],
  [{ limit: 1.5 }, RangeError, "limit"],
  [{ tag: 7 }, TypeError, "tag"],
  [{ status: [7] }, TypeError, "status"],
  [{ since: "yesterday" }, RangeError, "since"],
])("the option %o is rejected", (options, kind, name) => {
  const client = connect();
  expect(() => client.feed("mine", options as object)).toThrow(kind);
  expect(() => client.feed("mine", options as object)).toThrow(name);
});

describe("a snapshot", () => {
  let changes: number;
  let feed: Feed;

  beforeEach(() => {
    changes = 0;
    feed = new Feed("mine", () => {
      changes += 1;
    });
    feed.views.add({ filter: {}, wanted: 100, missing: 0 } as never);
    feed.beginJoin();
  });

  const page = (jobs: JobSummaryMessage[], fields: object = {}) =>
    feed.handleSnapshot({ feed: "mine", jobs, ...fields });
  const message = (second: number, fields: Partial<JobSummaryMessage> = {}) => ({
    feed: "mine",
    ...job(second, fields),
  });
  const shown = (): [string, number][] => feed.jobs.map(({ jobId, seq }) => [jobId, seq]);

  test("does not replace a newer summary that arrives before its last page", () => {
    page([job(3)], { reset: true });
    feed.handleJob(message(1, { seq: 7 }));
    feed.handleJob(message(4));
    page([job(2), job(1, { seq: 2 })], { last: true });
    expect(shown()).toEqual([
      ["job-4", 1],
      ["job-3", 1],
      ["job-2", 1],
      ["job-1", 7],
    ]);
    expect(feed.isLive).toBe(true);
  });

  test("does not contain a job that leaves before its last page", () => {
    page([job(3)], { reset: true });
    feed.handleGone("job-1");
    feed.handleGone("job-2");
    feed.handleJob(message(2, { seq: 3 }));
    page([job(2), job(1)], { last: true });
    expect(shown()).toEqual([
      ["job-3", 1],
      ["job-2", 3],
    ]);
  });

  test("replaces the shown list at its last page, and keeps unchanged jobs", () => {
    page([job(3, { tags: ["a"] }), job(2)], { reset: true, last: true });
    const [three, two] = feed.jobs;
    page([job(4), job(3, { tags: ["a"] })], { reset: true });
    expect(shown()).toEqual([
      ["job-3", 1],
      ["job-2", 1],
    ]);
    page([job(2, { seq: 2 })], { last: true });
    expect(shown()).toEqual([
      ["job-4", 1],
      ["job-3", 1],
      ["job-2", 2],
    ]);
    expect(feed.jobs[1]).toBe(three);
    expect(feed.jobs[2]).not.toBe(two);
  });

  test("from another server shows its record, even if the epoch is lower", () => {
    page([job(1, { epoch: "e5", seq: 9 })], { reset: true, last: true });
    page([job(1, { epoch: "e4", seq: 2 })], { reset: true, last: true });
    expect(shown()).toEqual([["job-1", 2]]);
    page([job(1, { epoch: "e4", seq: 1 })], { reset: true, last: true });
    expect(shown()).toEqual([["job-1", 2]]);
  });

  test("shows its pages as they arrive if no list is shown", () => {
    page([job(3)], { reset: true });
    expect(shown()).toEqual([["job-3", 1]]);
    expect(feed.isLive).toBe(false);
  });

  test("that was interrupted adds no job to the next one", () => {
    page([job(3)], { reset: true });
    feed.markDisconnected();
    feed.handleJob(message(2));
    page([job(1)]);
    expect(shown()).toEqual([["job-3", 1]]);
    feed.beginJoin();
    page([job(1)], { reset: true, last: true });
    expect(shown()).toEqual([["job-1", 1]]);
  });

  test("of older jobs without a job ends the list", () => {
    page([job(3)], { reset: true, last: true, cursor: "c" });
    expect(feed.hasOlder).toBe(true);
    feed.views.clear();
    feed.views.add({ filter: {}, wanted: 100, missing: 99 } as never);
    expect(feed.beginLoad()).toEqual({ feed: "mine", after: "c", limit: 100 });
    expect(feed.beginLoad()).toBeNull();
    page([], { last: true, cursor: "c" });
    expect(feed.beginLoad()).toBeNull();
    expect(changes).toBeGreaterThan(0);
  });
});

describe("a list", () => {
  test("copies its array once for many changes, and keeps unchanged jobs", () => {
    const list = new JobList();
    for (const message of jobs(10_000)) {
      list.put(toSummary(message));
    }
    const before = list.items;
    expect(before).toHaveLength(10_000);
    list.put(toSummary(job(5000, { seq: 2 })));
    list.put(toSummary(job(20_000)));
    list.remove("job-7");
    const after = list.items;
    expect(list.items).toBe(after);
    expect(before).toHaveLength(10_000);
    expect(before[4999]?.seq).toBe(1);
    const changed = after.filter((job) => !before.includes(job)).map(({ jobId }) => jobId);
    expect(changed).toEqual(["job-20000", "job-5000"]);
  });

  test("is in order, whatever the order of the changes is", () => {
    const list = new JobList();
    const same = "2026-01-01T00:00:00";
    const times = [`${same}Z`, `${same}.5Z`, `${same}.250Z`, `${same}.25+00:00`, `${same}.000001Z`];
    for (const [index, created_at] of times.entries()) {
      list.put(toSummary(job(index, { created_at })));
    }
    expect(list.items.map(({ jobId }) => jobId)).toEqual([
      "job-1",
      "job-2",
      "job-3",
      "job-4",
      "job-0",
    ]);
    const moved = toSummary(job(0, { created_at: `${same}.9Z` }));
    list.put(moved);
    expect(list.items[0]).toBe(moved);
    expect(list.items).toHaveLength(5);
    expect([...list.items].sort(compareSummaries)).toEqual(list.items);
    expect(list.remove("job-0")).toBe(true);
    expect(list.remove("job-0")).toBe(false);
    expect(list.size).toBe(4);
  });

  test("keeps a summary that is received again", () => {
    const known = toSummary(job(1, { tags: ["a"] }));
    expect(newerSummary(known, toSummary(job(1, { tags: ["a"] })))).toBe(known);
    const other = toSummary(job(1, { tags: ["b"] }));
    expect(newerSummary(known, other)).toBe(other);
  });
});

describe("a filter", () => {
  const summary = (fields: Partial<JobSummaryMessage>): JobSummary => toSummary(job(1, fields));

  test.each([
    ["running", "started", true],
    ["running", "retrying", true],
    ["running", "paused", true],
    ["running", "queued", false],
    ["running", "pending", false],
    ["running", "complete", false],
    ["failed", "error", true],
    ["failed", "started", false],
    ["queued", "queued", true],
  ])("of status %s and a job with the status %s: %s", (name, status, isMatch) => {
    expect(matches(filterOf({ status: name }), summary({ status }))).toBe(isMatch);
  });

  test("has only the options that are given", () => {
    expect(filterOf({ status: [], tag: "", task: null, owner: undefined, limit: 3 })).toEqual({});
    const since = "2026-01-01T00:00:01Z";
    const filter = filterOf({ status: ["b", "a", "b"], tag: "t", task: "k", owner: "o", since });
    expect(filter).toEqual({ status: ["a", "b"], tag: "t", task: "k", owner: "o", since });
    const described = { status: "a", tags: ["s", "t"], task: "k", owner: "o" };
    expect(matches(filter, summary(described))).toBe(true);
    for (const other of [{ status: "c" }, { tags: [] }, { task: "l" }, { owner: "p" }]) {
      expect(matches(filter, summary({ ...described, ...other }))).toBe(false);
    }
    expect(matches(filter, toSummary(job(0, described)))).toBe(false);
  });

  test("of two stores has what either shows", () => {
    const union = unionOf([
      { status: ["a"], tag: "t", since: "2026-01-01T00:00:01Z" },
      { status: ["b"], tag: "t", since: "2026-01-01T00:00:00.5Z" },
    ]);
    expect(union).toEqual({ status: ["a", "b"], tag: "t", since: "2026-01-01T00:00:00.5Z" });
    expect(unionOf([{ tag: "t" }, { tag: "u", task: "k" }])).toEqual({});
    const many = Array.from({ length: 16 }, (_, index) => `s${index}`);
    expect(unionOf([{ status: many }, { status: ["t"] }])).toEqual({});
    expect(covers(union, { status: ["b"], tag: "t", since: "2026-01-02T00:00:00Z" })).toBe(true);
    expect(covers(union, { status: ["b"] })).toBe(false);
  });
});
