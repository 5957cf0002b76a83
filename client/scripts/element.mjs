/**
 * Build the element into one file for a plain `<script>`: into dist/ for npm, and into the Python
 * package, whose server serves it as /jobcast.js.
 */
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const root = fileURLToPath(new URL("..", import.meta.url));
const NAME = "jobcast.js";

await build({
  root,
  configFile: false,
  logLevel: "error",
  build: {
    outDir: "dist",
    emptyOutDir: false,
    target: "baseline-widely-available",
    lib: { entry: "src/element.ts", formats: ["iife"], name: "jobcast", fileName: () => NAME },
  },
});

// An npm package has no Python package beside it.
const python = new URL("../../src/jobcast/", import.meta.url);
if (existsSync(python)) {
  mkdirSync(new URL("_element/", python), { recursive: true });
  copyFileSync(`${root}dist/${NAME}`, new URL(`_element/${NAME}`, python));
}
