import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { compile } from "svelte/compiler";
import { render } from "svelte/server";
import { get, writable } from "svelte/store";
import { beforeEach, expect, test } from "vitest";
import {
  cancelStore,
  connectionStore,
  type FeedQuery,
  type FeedState,
  type FollowedJob,
  jobStore,
  jobsStore,
} from "../src/svelte.js";
import { createFakeJobClient, type FakeJobClient } from "../src/testing.js";

let client: FakeJobClient;

beforeEach(() => {
  client = createFakeJobClient();
});

test("a store follows a job while it has subscribers", () => {
  const ends: unknown[] = [];
  const store = jobStore<number>("a", { client, onComplete: (result) => ends.push(result) });
  expect(client.fakeJob("a").isFollowed).toBe(false);
  const seen: FollowedJob<number>[] = [];
  const stop = store.subscribe((job) => seen.push(job));
  expect(seen.at(-1)).toMatchObject({ phase: "waiting", isDone: false });
  client.fakeJob("a").status("started").progress(40);
  expect(seen.at(-1)).toMatchObject({ status: "started", percentage: 40 });
  client.disconnect("no network");
  expect(seen.at(-1)?.connectionError?.message).toBe("no network");
  client.connect();
  client.fakeJob("a").complete(3);
  expect(seen.at(-1)).toMatchObject({ status: "complete", result: 3, isDone: true });
  expect(ends).toEqual([3]);
  stop();
  expect(client.fakeJob("a").isFollowed).toBe(false);
});

test("the id may be a store", () => {
  const id = writable<string | null>(null);
  const seen: string[] = [];
  const stop = jobStore(id, { client }).subscribe(({ jobId, phase }) =>
    seen.push(`${jobId} ${phase}`),
  );
  expect(seen.at(-1)).toBe(" none");
  id.set("a");
  expect(seen.at(-1)).toBe("a waiting");
  id.set("b");
  expect(client.fakeJob("a").isFollowed).toBe(false);
  expect(seen.at(-1)).toBe("b waiting");
  stop();
});

test("a list is a store that follows a feed while it has subscribers", async () => {
  const feed = client.fakeFeed("mine").put("a", { status: "error" }).put("b");
  const query = writable<FeedQuery>({ feed: "mine" });
  const seen: FeedState[] = [];
  const ids = () => seen.at(-1)?.jobs.map(({ jobId }) => jobId);
  const stop = jobsStore(query, { client }).subscribe((state) => seen.push(state));
  expect(ids()).toEqual(["b", "a"]);
  feed.put("c");
  expect(ids()).toEqual(["c", "b", "a"]);
  const count = seen.length;
  query.set({ feed: "mine" });
  expect(seen).toHaveLength(count);
  query.set({ feed: "mine", status: "failed" });
  await Promise.resolve();
  expect(ids()).toEqual(["a"]);
  expect(seen.at(-1)?.status).toBe("live");
  stop();
  await Promise.resolve();
  expect(feed.isFollowed).toBe(false);
  expect(get(jobsStore({ feed: "" }, { client })).status).toBe("none");
});

test("the connection is a store", () => {
  const store = connectionStore(client);
  expect(get(store).state).toBe("connected");
  client.refuse("token_expired", "too late");
  expect(get(store)).toMatchObject({ state: "refused", code: "token_expired" });
});

test("the component of the README shows a job of the client above it", async () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const [, job] = /```svelte\n([\s\S]*?)```/.exec(readme) ?? [];
  const folder = new URL("generated/svelte/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  writeComponent(folder, "Job.svelte.js", job ?? "");
  const page = writeComponent(folder, "Page.svelte.js", PAGE);
  client.fakeJob("a").status("started").progress(40);
  const { default: Page } = await import(/* @vite-ignore */ page.href);
  expect(render(Page, { props: { client } }).body).toContain('value="40"');
  expect(client.fakeJob("a").isFollowed).toBe(false);
  client.fakeJob("a").complete({ rows: 3 });
  expect(render(Page, { props: { client } }).body).toContain("<p>3 rows</p>");
});

const PAGE = `
<script>
  import { setJobClient } from "@jobcast/client/svelte";
  import Job from "./Job.svelte.js";

  let { client } = $props();
  setJobClient(client);
</script>

<Job jobId="a" />
`;

/** Compile a component for server rendering, with the package's sources. Returns its module. */
function writeComponent(folder: URL, name: string, source: string): URL {
  const { code } = compile(source, { generate: "server" }).js;
  const path = new URL(name, folder);
  const module = code.replace("@jobcast/client/svelte", "../../../src/svelte.js");
  writeFileSync(path, `// @ts-nocheck\n${module}`);
  return path;
}

test("a store cancels its job, and has the answer", async () => {
  client.fakeJob("a").status("queued");
  const request = cancelStore("a", { client });
  const pending: boolean[] = [];
  const stop = request.subscribe(({ isPending }) => pending.push(isPending));
  expect(await request.cancel()).toEqual({ outcome: "cancelled", terminates: false });
  expect(pending).toEqual([false, true, false]);
  client.fakeJob("a").refuseCancel();
  expect(await request.cancel()).toBeNull();
  expect(get(request).error).toMatchObject({ code: "not_cancellable" });
  stop();
});
