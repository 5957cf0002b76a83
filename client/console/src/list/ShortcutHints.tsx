import type { ReactElement } from "react";
import { setShortcutsEnabled, shortcuts } from "../lib/shortcuts";
import { useStore } from "../lib/useStore";

/** The shortcut keys, with a checkbox to turn them off. */
export function ShortcutHints(): ReactElement {
  return (
    <div className="shortcuts">
      <label>
        <input
          type="checkbox"
          checked={useStore(shortcuts)}
          onChange={(event) => setShortcutsEnabled(event.target.checked)}
          aria-describedby="shortcuts-help"
        />
        Shortcut keys
      </label>
      <p id="shortcuts-help">
        <kbd>j</kbd> <kbd>k</kbd> next and previous job, <kbd>/</kbd> search, <kbd>c</kbd> cancel
      </p>
    </div>
  );
}
