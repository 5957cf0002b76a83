/** The colour theme: the system's, or the user's choice. */

import { readStorage, writeStorage } from "./storage";
import { WritableStore } from "./store";

export type Theme = "light" | "dark" | "system";

const KEY = "jobcast.theme";

export const theme = new WritableStore<Theme>(parseTheme(readStorage(KEY)));

export function setTheme(next: Theme): void {
  writeStorage(KEY, next);
  apply(next);
}

/** Apply the stored theme now, and again when another tab changes it. */
export function initTheme(): void {
  apply(theme.getSnapshot());
  window.addEventListener("storage", ({ key }) => {
    if (key === KEY) {
      apply(parseTheme(readStorage(KEY)));
    }
  });
}

function apply(next: Theme): void {
  if (next === "system") {
    document.documentElement.removeAttribute("data-theme");
  } else {
    document.documentElement.setAttribute("data-theme", next);
  }
  theme.set(next);
}

function parseTheme(value: unknown): Theme {
  return value === "light" || value === "dark" ? value : "system";
}
