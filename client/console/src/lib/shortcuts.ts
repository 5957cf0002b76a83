/**
 * The page's shortcuts: single keys. Users can turn them off, because speech input may trigger them
 * by accident.
 */

import { readStorage, writeStorage } from "./storage";
import { WritableStore } from "./store";

const KEY = "jobcast.shortcuts";

export const shortcuts = new WritableStore<boolean>(parseSetting(readStorage(KEY)));

export function setShortcutsEnabled(on: boolean): void {
  writeStorage(KEY, on);
  shortcuts.set(on);
}

/** Adopt the setting when another tab changes it. */
export function syncShortcuts(): void {
  window.addEventListener("storage", ({ key }) => {
    if (key === KEY) {
      shortcuts.set(parseSetting(readStorage(KEY)));
    }
  });
}

/** Return whether a key may be a shortcut: not text input, and not a shortcut of the browser. */
export function isShortcut(event: KeyboardEvent): boolean {
  const target = event.target as Element | null;
  const isTyped = target?.closest(TEXT_FIELDS) !== null;
  return shortcuts.getSnapshot() && !(event.ctrlKey || event.metaKey || event.altKey || isTyped);
}

const NON_TEXT_TYPES = [
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
const TEXT_FIELDS = `input:not(${NON_TEXT_TYPES}), textarea, select, [contenteditable]`;

function parseSetting(value: unknown): boolean {
  return value !== false;
}
