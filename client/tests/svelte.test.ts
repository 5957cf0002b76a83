import { get, writable } from "svelte/store";
import { beforeEach, expect, test } from "vitest";
import { connectionStore, type FollowedJob, jobStore } from "../src/svelte.js";
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

test("the connection is a store", () => {
  const store = connectionStore(client);
  expect(get(store).state).toBe("connected");
  client.refuse("token_expired", "too late");
  expect(get(store)).toMatchObject({ state: "refused", code: "token_expired" });
});
