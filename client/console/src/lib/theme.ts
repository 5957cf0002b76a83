/** Light or dark: what the system says, or what was chosen here. */

import { recall, remember } from "./storage";
import { Value } from "./store";

export type Theme = "light" | "dark" | "system";

const KEY = "jobcast.theme";

export const theme = new Value<Theme>(known(recall(KEY)));

export function choose(choice: Theme): void {
  remember(KEY, choice);
  apply(choice);
}

/** Shows the page as chosen, here and when another tab chooses. */
export function startTheme(): void {
  apply(theme.getSnapshot());
  window.addEventListener("storage", ({ key }) => {
    if (key === KEY) {
      apply(known(recall(KEY)));
    }
  });
}

function apply(choice: Theme): void {
  if (choice === "system") {
    document.documentElement.removeAttribute("data-theme");
  } else {
    document.documentElement.setAttribute("data-theme", choice);
  }
  theme.set(choice);
}

function known(value: unknown): Theme {
  return value === "light" || value === "dark" ? value : "system";
}
