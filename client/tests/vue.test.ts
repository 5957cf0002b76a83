// @vitest-environment happy-dom
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type App, createApp, createSSRApp, h, nextTick, type Ref, ref } from "vue";
import { renderToString } from "vue/server-renderer";
import { createFakeJobClient, type FakeJobClient } from "../src/testing.js";
import {
  type FeedQuery,
  jobcast,
  useCancelJob,
  useConnection,
  useJob,
  useJobs,
} from "../src/vue.js";

let client: FakeJobClient;
let app: App | null;
let ends: unknown[];
let jobId: Ref<string | null>;

beforeEach(() => {
  client = createFakeJobClient();
  ends = [];
  jobId = ref("a");
});

afterEach(() => {
  app?.unmount();
  app = null;
});

const Page = {
  setup() {
    const job = useJob<{ rows: number }>(jobId, {
      onComplete: ({ rows }) => ends.push(rows),
      onError: ({ message }) => ends.push(message),
    });
    const connection = useConnection();
    return () => {
      const { status, percentage, phase } = job.value;
      return h("p", `${status} ${percentage} ${phase} ${connection.value.state}`);
    };
  },
};

/** Mount the page, and return its root. */
function mount(): HTMLElement {
  const root = document.createElement("div");
  app = createApp(Page).use(jobcast, { client });
  app.mount(root);
  return root;
}

async function shows(root: HTMLElement, text: string): Promise<void> {
  await nextTick();
  expect(root.textContent).toBe(text);
}

test("a component shows a job until its end", async () => {
  const root = mount();
  await shows(root, "pending null waiting connected");
  client.fakeJob("a").status("started").progress(40);
  await shows(root, "started 40 following connected");
  client.disconnect();
  await shows(root, "started 40 reconnecting reconnecting");
  client.connect();
  client.fakeJob("a").complete({ rows: 3 });
  await shows(root, "complete 40 following connected");
  expect(ends).toEqual([3]);
});

test("another id follows another job, and no id none", async () => {
  client.fakeJob("b").status("started").fail("no");
  const root = mount();
  expect(client.fakeJob("a").isFollowed).toBe(true);
  jobId.value = "b";
  await shows(root, "error null following connected");
  expect(client.fakeJob("a").isFollowed).toBe(false);
  expect(ends).toEqual(["no"]);
  jobId.value = null;
  await shows(root, "pending null none connected");
  expect(client.fakeJob("b").isFollowed).toBe(false);
});

test("an unmounted component follows no job", () => {
  mount();
  app?.unmount();
  app = null;
  expect(client.fakeJob("a").isFollowed).toBe(false);
  expect(client.connection.getSnapshot().state).toBe("connected");
});

test("server rendering follows no job", async () => {
  const html = await renderToString(createSSRApp(Page).use(jobcast, { client }));
  expect(html).toBe("<p>pending null connecting connected</p>");
  expect(client.fakeJob("a").isFollowed).toBe(false);
});

test("a list shows the jobs of a feed, and another query takes effect at once", async () => {
  const feed = client.fakeFeed("mine").put("a", { status: "error" }).put("b");
  const query: Ref<FeedQuery> = ref({ feed: "mine" });
  const List = {
    setup() {
      const list = useJobs(query);
      return () =>
        h("p", [list.value.status, ...list.value.jobs.map(({ jobId }) => jobId)].join(" "));
    },
  };
  const html = await renderToString(createSSRApp(List).use(jobcast, { client }));
  expect(html).toBe("<p>connecting</p>");
  expect(feed.isFollowed).toBe(false);
  const root = document.createElement("div");
  app = createApp(List).use(jobcast, { client });
  app.mount(root);
  await shows(root, "live b a");
  feed.put("c");
  await shows(root, "live c b a");
  query.value = { feed: "mine", status: "failed" };
  await shows(root, "live a");
  query.value = { feed: null };
  await shows(root, "none");
  expect(feed.isFollowed).toBe(false);
});

test("a component cancels its job, and shows a refusal", async () => {
  client.fakeJob("a").status("started");
  client.fakeJob("b").status("started", { cancellable: false });
  const root = document.createElement("div");
  app = createApp({
    setup() {
      const { cancel, request } = useCancelJob(jobId);
      return () => {
        const { isPending, result, error } = request.value;
        const text = `${isPending} ${result?.outcome} ${error?.code}`;
        return h("button", { onClick: () => void cancel() }, text);
      };
    },
  }).use(jobcast, { client });
  app.mount(root);
  const click = () => root.querySelector("button")?.click();
  await shows(root, "false undefined undefined");
  click();
  await vi.waitFor(() => shows(root, "false requested undefined"));
  jobId.value = "b";
  await shows(root, "false undefined undefined");
  click();
  await vi.waitFor(() => shows(root, "false undefined not_cancellable"));
  expect(client.fakeJob("a").cancelRequests).toEqual([""]);
});
