import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

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
  for (const name of ["react", "socket.io-client", "svelte", "vue"]) {
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
