/** The icon of the tab is replaced only when it changes, because the browser loads each new one. */

import { afterEach, expect, it, vi } from "vitest";

import { setFavicon } from "../src/lib/favicon";

afterEach(() => {
  setFavicon(null);
  vi.unstubAllGlobals();
});

function stubIcon(): string[] {
  const icons: string[] = [];
  const link = {
    set href(value: string) {
      icons.push(value);
    },
  };
  vi.stubGlobal("document", { querySelector: () => link });
  return icons;
}

it("is not loaded again when the page opens", () => {
  const icons = stubIcon();
  setFavicon(null);
  expect(icons).toEqual([]);
});

it("shows a state, and then the page's own icon again", () => {
  const icons = stubIcon();
  setFavicon({ tone: "active", percentage: 41 });
  setFavicon({ tone: "active", percentage: 43 }); // the same step
  setFavicon(null);
  expect(icons).toHaveLength(2);
  expect(icons[0]).toMatch(/^data:image\/svg\+xml,.*40%20100/);
  expect(icons[1]).toBe("./favicon.svg");
});
