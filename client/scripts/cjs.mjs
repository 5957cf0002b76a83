/** Mark the files in dist/cjs/ as CommonJS, for Jest and for `require`. */
import { writeFileSync } from "node:fs";

const folder = new URL("../dist/cjs/", import.meta.url);
writeFileSync(new URL("package.json", folder), `${JSON.stringify({ type: "commonjs" })}\n`);
