import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
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

/** Build the package as CommonJS, and run code that requires it. */
function run(code: string): string {
  const tsc = join(ROOT, "node_modules/.bin/tsc");
  execFileSync(tsc, ["-p", join(ROOT, "tsconfig.cjs.json"), "--outDir", join(folder, "built")]);
  writeFileSync(join(folder, "built/package.json"), '{ "type": "commonjs" }');
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
  writeFileSync(join(folder, "main.cjs"), code);
  // Jest cannot require ES modules, and neither may Node here.
  const options = ["--no-experimental-require-module", join(folder, "main.cjs")];
  return execFileSync(process.execPath, options, { encoding: "utf8" });
}

test("each module can be required, and a test can drive a job", () => {
  const output = run(`
    const { isTerminal } = require("./built/index.js");
    const { useJob } = require("./built/react.js");
    const { JobElement } = require("./built/element.js");
    const { createFakeJobClient } = require("./built/testing.js");
    const client = createFakeJobClient();
    const job = client.job("a");
    job.subscribe(() => {});
    client.fakeJob("a").status("started").complete(3);
    const { status, result } = job.getSnapshot();
    console.log(typeof useJob, typeof JobElement, status, result, isTerminal(status));
  `);
  expect(output.trim()).toBe("function function complete 3 true");
});
