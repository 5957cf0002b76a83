import { fileURLToPath } from "node:url";
import { createContext, Script } from "node:vm";
import { build } from "vite";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type * as App from "./reactNativeEntry.js";
import { TestServer } from "./server.js";
import { until } from "./waiting.js";

/** The globals that React Native has, apart from the language's own. It has no DOM. */
const GLOBALS = {
  console,
  setTimeout,
  clearTimeout,
  setInterval,
  clearInterval,
  queueMicrotask,
  fetch,
  WebSocket: globalThis.WebSocket,
  navigator: { product: "ReactNative" },
};

const ENTRY = fileURLToPath(new URL("reactNativeEntry.ts", import.meta.url));

let bundle: string;
let server: TestServer;

beforeAll(async () => {
  bundle = await bundleForReactNative();
});

beforeEach(async () => {
  server = await TestServer.start();
});

afterEach(() => server.stop());

/** Run the bundle as React Native does, and return its exports. */
function load(): typeof App {
  const context = createContext({ ...GLOBALS });
  // Older runtimes lack both.
  new Script("delete globalThis.WeakRef; delete globalThis.FinalizationRegistry").runInContext(
    context,
  );
  new Script(bundle).runInContext(context);
  return (context as unknown as { bundle: typeof App }).bundle;
}

test("a job is followed without DOM globals", async () => {
  const { createJobClient, useJob } = load();
  expect(useJob).toBeTypeOf("function");
  const client = createJobClient({ url: `${server.url}/`, getToken: () => "token" });
  const job = client.job("a");
  const stop = job.subscribe(() => {});
  server.publish("a", "job_progress", { percentage: 40 });
  await until(job, ({ percentage }) => percentage === 40, "progress");
  await server.drop("network");
  server.publish("a", "job_complete", { result: { rows: 3 } });
  const { result } = await until(job, ({ status }) => status === "complete", "the end");
  expect(result).toEqual({ rows: 3 });
  stop();
  client.close();
});

test("a client without a url is refused in words", async () => {
  const client = load().createJobClient({ getToken: () => "token" });
  const stop = client.job("a").subscribe(() => {});
  const { code, message } = await until(
    client.connection,
    ({ state }) => state === "refused",
    "a refusal",
  );
  expect(code).toBe("invalid_url");
  expect(message).toContain("absolute");
  stop();
  client.close();
});

/** Bundle the package with the files of its dependencies that have no Node built-ins. */
async function bundleForReactNative(): Promise<string> {
  const output = await build({
    configFile: false,
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
    resolve: { conditions: ["react-native", "browser", "import", "default"] },
    build: {
      write: false,
      minify: false,
      lib: { entry: ENTRY, formats: ["iife"], name: "bundle", fileName: "bundle" },
    },
  });
  const [result] = Array.isArray(output) ? output : [output];
  if (!result || !("output" in result)) {
    throw new Error("vite built nothing");
  }
  return result.output.map((chunk) => ("code" in chunk ? chunk.code : "")).join("");
}
