/**
 * Writes into tests/generated/ what `npm run check` compiles: types of the JSON Schema, which those
 * in src/ are compared with, and the snippets of the README.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { compile } from "json-schema-to-typescript";

const schema = JSON.parse(
  readFileSync(new URL("../../protocol/events.schema.json", import.meta.url), "utf8"),
);
// It has no type, and so is of any; the generator takes it for an object.
schema.$defs.job_complete.properties.result.tsType = "unknown";
const messages = schema.anyOf.map(({ $ref }) => $ref.split("/").at(-1));
// An object with every message, so that each type can be found by the message's name.
const all = {
  $defs: schema.$defs,
  type: "object",
  required: messages,
  properties: Object.fromEntries(messages.map((name) => [name, { $ref: `#/$defs/${name}` }])),
};
const folder = new URL("../tests/generated/", import.meta.url);
mkdirSync(folder, { recursive: true });
writeFileSync(
  new URL("schema.ts", folder),
  await compile(all, "SchemaMessages", {
    additionalProperties: false,
    bannerComment: "",
    strictIndexSignatures: true,
  }),
);

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
for (const [index, [, kind, code]] of [...readme.matchAll(/```(tsx?)\n([\s\S]*?)```/g)].entries()) {
  writeFileSync(new URL(`readme-${index}.${kind}`, folder), code);
}
