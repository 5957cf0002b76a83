import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

const JEST_TEST = `
  const { createElement } = require("react");
  const { renderToString } = require("react-dom/server");
  const { JobcastProvider, useJob } = require("@jobcast/client/react");
  const { createFakeJobClient } = require("@jobcast/client/testing");

  test("a component and a fake job", async () => {
    const client = createFakeJobClient();
    const Page = () => createElement("p", null, useJob("a").status);
    const page = createElement(JobcastProvider, { client }, createElement(Page));
    expect(renderToString(page)).toBe("<p>pending</p>");
    const result = client.result("a");
    client.fakeJob("a").status("started").complete(3);
    expect(await result).toBe(3);
  });
`;

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "jobcast-commonjs-"));
});

afterEach(() => rmSync(folder, { recursive: true }));

/** Install the CommonJS build and its peers into a folder. */
function install(): void {
  const target = join(folder, "node_modules/@jobcast/client");
  const built = join(target, "dist/cjs");
  mkdirSync(built, { recursive: true });
  copyFileSync(join(ROOT, "package.json"), join(target, "package.json"));
  const tsc = join(ROOT, "node_modules/.bin/tsc");
  execFileSync(tsc, ["-p", join(ROOT, "tsconfig.cjs.json"), "--outDir", built]);
  writeFileSync(join(built, "package.json"), '{ "type": "commonjs" }');
  for (const name of ["react", "react-dom", "socket.io-client", "svelte", "vue"]) {
    symlinkSync(join(ROOT, "node_modules", name), join(folder, "node_modules", name));
  }
}

/** Run a CommonJS program. Like Jest, it cannot require ES modules. */
function run(code: string): string {
  const path = join(folder, "main.cjs");
  writeFileSync(path, code);
  const options = ["--no-experimental-require-module", path];
  return execFileSync(process.execPath, options, { encoding: "utf8" }).trim();
}

test("each module can be required, and a test can drive a job", () => {
  install();
  const output = run(`
    const { isTerminal } = require("@jobcast/client");
    const { useJob } = require("@jobcast/client/react");
    const vue = require("@jobcast/client/vue");
    const { JobElement } = require("@jobcast/client/element");
    const { createFakeJobClient } = require("@jobcast/client/testing");
    const client = createFakeJobClient();
    const job = client.job("a");
    job.subscribe(() => {});
    client.fakeJob("a").status("started").complete(3);
    const { status, result } = job.getSnapshot();
    console.log(typeof useJob, typeof vue.useJob, typeof JobElement);
    console.log(status, result, isTerminal(status));
  `);
  expect(output.split("\n")).toEqual(["function function function", "complete 3 true"]);
});

test("Jest loads the package without a transform", () => {
  install();
  writeFileSync(join(folder, "package.json"), "{}");
  writeFileSync(join(folder, "job.test.js"), JEST_TEST);
  const jest = join(ROOT, "node_modules/jest/bin/jest.js");
  const options = [jest, "--rootDir", folder, "--runInBand", "--watchman=false"];
  const { status, stderr } = spawnSync(process.execPath, options, { encoding: "utf8" });
  expect(stderr).toContain("1 passed");
  expect(status).toBe(0);
});
