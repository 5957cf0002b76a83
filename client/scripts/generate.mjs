/**
 * Write the files in tests/generated/ that `npm run check` compiles: the types of the JSON Schema, to
 * compare with those in src/, and the code blocks of the README.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { compile } from "json-schema-to-typescript";

const schema = JSON.parse(
  readFileSync(new URL("../../protocol/events.schema.json", import.meta.url), "utf8"),
);
// The schema allows any type here; the generator would assume an object.
schema.$defs.job_complete.properties.result.tsType = "unknown";
// The generator would read the patterns of the names as objects.
schema.$defs.feed.tsType = "string";
const messages = schema.anyOf.map(({ $ref }) => $ref.split("/").at(-1));
// One object type with all messages as properties, so that tests find each type by its name.
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
    ignoreMinAndMaxItems: true, // arrays rather than unions of tuples
    bannerComment: "",
    strictIndexSignatures: true,
  }),
);

const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
for (const [index, [, kind, code]] of [...readme.matchAll(/```(tsx?)\n([\s\S]*?)```/g)].entries()) {
  writeFileSync(new URL(`readme-${index}.${kind}`, folder), code);
}
