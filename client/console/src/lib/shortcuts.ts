/**
 * The page's keys: letters and signs by themselves. One can turn them off, for who dictates to the
 * computer presses them unawares.
 */

import { recall, remember } from "./storage";
import { Value } from "./store";

const KEY = "jobcast.shortcuts";

export const shortcuts = new Value<boolean>(known(recall(KEY)));

export function allowShortcuts(on: boolean): void {
  remember(KEY, on);
  shortcuts.set(on);
}

/** Lets them be on or off as another tab chooses. */
export function watchShortcuts(): void {
  window.addEventListener("storage", ({ key }) => {
    if (key === KEY) {
      shortcuts.set(known(recall(KEY)));
    }
  });
}

/** Whether a key may be one of them: it is no text, and no shortcut of somebody else. */
export function isShortcut(event: KeyboardEvent): boolean {
  const target = event.target as Element | null;
  const isTyped = target?.closest(FIELDS) !== null;
  return shortcuts.getSnapshot() && !(event.ctrlKey || event.metaKey || event.altKey || isTyped);
}

const NO_TEXT = [
  "button",
  "checkbox",
  "color",
  "file",
  "image",
  "radio",
  "range",
  "reset",
  "submit",
]
  .map((type) => `[type="${type}"]`)
  .join(", ");
const FIELDS = `input:not(${NO_TEXT}), textarea, select, [contenteditable]`;

function known(value: unknown): boolean {
  return value !== false;
}
