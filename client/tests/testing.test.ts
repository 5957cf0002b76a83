import { expect, test } from "vitest";
import { ConnectionRefused, JobFailed, JobRefused } from "../src/index.js";
import { createFakeJobClient } from "../src/testing.js";

test("a subscriber sees the history at once, and each later event", () => {
  const client = createFakeJobClient();
  const fake = client.fakeJob("a").status("started", { run: 1 }).log("a line");
  const job = client.job("a");
  const seen: unknown[] = [];
  const stop = job.subscribe(() => seen.push(job.getSnapshot().percentage));
  expect(job.getSnapshot()).toMatchObject({ status: "started", joined: "yes", run: 1 });
  fake.progress(50, { message: "halfway" }).complete({ rows: 3 });
  expect(seen).toContain(50);
  expect(job.getSnapshot()).toMatchObject({ status: "complete", result: { rows: 3 } });
  stop();
  expect(fake.isFollowed).toBe(false);
});

test("a job has the title and the tags that a test publishes", () => {
  const client = createFakeJobClient();
  const fake = client.fakeJob("a").status("started", { title: "one", worker: "celery@a" });
  const job = client.job("a");
  const stop = job.subscribe(() => {});
  expect(job.getSnapshot()).toMatchObject({ title: "one", tags: [], worker: "celery@a" });
  fake.info({ title: "two", tags: ["urgent"] });
  expect(job.getSnapshot()).toMatchObject({ title: "two", tags: ["urgent"], parent: null });
  expect(() => fake.info({ tags: [""] })).toThrow("tags");
  client.disconnect();
  client.connect();
  expect(job.getSnapshot()).toMatchObject({ title: "two", tags: ["urgent"], worker: "celery@a" });
  stop();
});

test("result and events work as with a server", async () => {
  const client = createFakeJobClient();
  const result = client.result("a");
  const types: string[] = [];
  const reading = (async () => {
    for await (const event of client.events("a")) types.push(event.type);
  })();
  client.fakeJob("a").status("started").progress(1).complete(7);
  expect(await result).toBe(7);
  await reading;
  expect(types).toEqual(["job_status", "job_progress", "job_complete"]);
  client.fakeJob("b").fail("no", { error: "ValueError", reason: "time_limit" });
  const failed = await client.result("b").catch((error: unknown) => error);
  expect(failed).toBeInstanceOf(JobFailed);
  expect(failed).toMatchObject({ error: "ValueError", reason: "time_limit", message: "no" });
});

test("a refused job and a refused connection are errors", async () => {
  const client = createFakeJobClient();
  client.fakeJob("a").refuse();
  await expect(client.result("a")).rejects.toBeInstanceOf(JobRefused);
  client.refuse("token_expired", "too late");
  await expect(client.result("b")).rejects.toBeInstanceOf(ConnectionRefused);
  client.close();
  await expect(client.result("b")).rejects.toMatchObject({ code: "closed" });
});

test("events during an outage arrive once after it", () => {
  const client = createFakeJobClient();
  const lines: string[] = [];
  const stop = client.follow("a", (event) => {
    if (event.type === "job_log") lines.push(event.message);
  });
  client.fakeJob("a").log("before");
  return Promise.resolve().then(() => {
    client.disconnect();
    client.fakeJob("a").log("during");
    expect(client.connection.getSnapshot().state).toBe("reconnecting");
    client.connect();
    client.fakeJob("a").log("after");
    expect(lines).toEqual(["before", "during", "after"]);
    stop();
  });
});

test("an invalid event names its field", () => {
  const job = createFakeJobClient().fakeJob("a");
  expect(() => job.progress(101)).toThrow("percentage");
});

test("a feed has the jobs that a test adds, filtered as by a server", () => {
  const client = createFakeJobClient();
  const fake = client.fakeFeed("mine").put("a", { status: "started", title: "one" }).put("b");
  const feed = client.feed("mine", { status: "running" });
  const seen: string[] = [];
  const stop = feed.subscribe(() => {
    seen.push(
      feed
        .getSnapshot()
        .jobs.map(({ jobId }) => jobId)
        .join(" "),
    );
  });
  expect(feed.getSnapshot()).toMatchObject({ status: "live", total: 1, jobs: [{ title: "one" }] });
  fake.put("b", { status: "started" }).put("a", { status: "complete" }).remove("b");
  expect(seen.slice(-3)).toEqual(["b a", "b", ""]);
  expect(() => fake.put("a", { percentage: 101 })).toThrow("percentage");
  stop();
});

test("a refused feed stays refused for later followers", () => {
  const client = createFakeJobClient();
  client.fakeFeed("all").refuse();
  const feed = client.feed("all");
  const stop = feed.subscribe(() => {});
  expect(feed.getSnapshot()).toMatchObject({
    status: "refused",
    error: { code: "feed_not_allowed" },
  });
  client.close();
  expect(feed.getSnapshot().status).toBe("closed");
  stop();
});

test("a request to cancel a job is answered as by a server", async () => {
  const client = createFakeJobClient();
  const outcome = async (jobId: string) => (await client.cancel(jobId)).outcome;
  const stops = ["waiting", "running"].map((jobId) => client.job(jobId).subscribe(() => {}));
  client.fakeJob("waiting").status("queued");
  client.fakeJob("running").status("started", { terminates: true });
  expect(await outcome("waiting")).toBe("cancelled");
  expect(client.job("waiting").getSnapshot()).toMatchObject({ status: "cancelled", error: null });
  expect(await outcome("waiting")).toBe("already_ended");
  const request = await client.cancel("running", { message: "wrong file" });
  expect(request).toEqual({ outcome: "requested", terminates: true });
  expect(client.job("running").getSnapshot()).toMatchObject({
    status: "cancelling",
    cancellation: { by: null, message: "wrong file", reason: null },
  });
  expect(await outcome("running")).toBe("requested");
  client.fakeJob("running").cancelled({ by: "ada" });
  expect(client.job("running").getSnapshot()).toMatchObject({
    status: "cancelled",
    cancellation: { by: "ada", reason: "cancelled" },
  });
  expect(client.fakeJob("running").cancelRequests).toEqual(["wrong file", ""]);
  await expect(client.cancel("unknown")).rejects.toMatchObject({ code: "job_not_found" });
  client.fakeJob("fixed").status("started", { cancellable: false });
  await expect(client.cancel("fixed")).rejects.toMatchObject({ code: "not_cancellable" });
  client.fakeJob("fixed").refuseCancel("rate_limited", "later");
  await expect(client.cancel("fixed")).rejects.toMatchObject({ code: "rate_limited" });
  client.refuse("token_expired", "too late");
  await expect(client.cancel("running")).rejects.toBeInstanceOf(ConnectionRefused);
  for (const stop of stops) stop();
});
