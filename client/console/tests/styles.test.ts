/** The styles and the components use the same class names. */

import { readdirSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";

const SOURCE = `${import.meta.dirname}/../src`;

function read(extension: string): string {
  return readdirSync(SOURCE, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(extension))
    .map((path) => readFileSync(`${SOURCE}/${path}`, "utf8"))
    .join("\n");
}

const words = (text: string): string[] => text.match(/[a-z][a-z-]*/g) ?? [];
const components = read(".tsx") + read(".ts");
const rules = read(".css")
  .replaceAll(/\/\*[\s\S]*?\*\//g, "")
  .replaceAll(/"[^"]*"/g, "");
const styled = new Set([...rules.matchAll(/\.([a-z][a-z-]*)/g)].map(([, name = ""]) => name));

it("every class of a component has a style", () => {
  const used = [...components.matchAll(/className="([^"]*)"/g)].flatMap(([, names = ""]) =>
    words(names),
  );
  expect(used.length).toBeGreaterThan(50);
  expect(used.filter((name) => !styled.has(name))).toEqual([]);
});

it("every style belongs to a class of a component", () => {
  const texts = new Set(
    [...components.matchAll(/["`]([^"`]*)["`]/g)].flatMap(([text]) => words(text)),
  );
  expect(styled.size).toBeGreaterThan(50);
  expect([...styled].filter((name) => !texts.has(name))).toEqual([]);
});
