/** Print the size that the package adds to a page, minified and gzipped. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const client = `export { createJobClient } from "@jobcast/client";`;
const hook = `export * from "@jobcast/client/react";`;
const react = ["react", "react/jsx-runtime"];
const vue = `export * from "@jobcast/client/vue";`;
const svelte = `export * from "@jobcast/client/svelte";`;
const element = `import "@jobcast/client/element";`;
const testing = `export * from "@jobcast/client/testing";`;

/** @type {[string, string, string[]][]} */
const entries = [
  ["createJobClient", client, ["socket.io-client"]],
  ["createJobClient with socket.io-client", client, []],
  ["the hooks, without react and socket.io-client", hook, ["socket.io-client", ...react]],
  ["the hooks with socket.io-client, without react", hook, react],
  ["the composables, without vue and socket.io-client", vue, ["socket.io-client", "vue"]],
  [
    "the stores, without svelte and socket.io-client",
    svelte,
    ["socket.io-client", "svelte", "svelte/store"],
  ],
  ["the element, bundled into a page", element, []],
  ["the fake client", testing, []],
];

for (const [name, code, external] of entries) {
  const [minified, gzipped] = await sizeOf(code, external);
  print(name, minified, gzipped);
}

// The file that the server serves, and that a page loads without a build step.
const script = readFileSync(new URL("../dist/jobcast.js", import.meta.url));
print("jobcast.js", script.length, gzipSync(script, { level: 9 }).length);

/** @returns {Promise<[number, number]>} bytes, minified and gzipped. */
async function sizeOf(code, external) {
  const { output } = await build({
    root: fileURLToPath(new URL("..", import.meta.url)),
    configFile: false,
    logLevel: "error",
    plugins: [
      {
        name: "entry",
        resolveId: (id) => (id === "entry" ? "\0entry" : null),
        load: (id) => (id === "\0entry" ? code : null),
      },
    ],
    build: {
      write: false,
      modulePreload: false,
      rolldownOptions: { input: "entry", external, preserveEntrySignatures: "strict" },
    },
  });
  const text = output.map((chunk) => chunk.code ?? "").join("");
  return [Buffer.byteLength(text), gzipSync(text, { level: 9 }).length];
}

/** @param {string} name */
function print(name, minified, gzipped) {
  console.log(`${name}: ${kilobytes(minified)} minified, ${kilobytes(gzipped)} gzipped`);
}

function kilobytes(bytes) {
  return `${(bytes / 1000).toFixed(1)} kB`;
}
