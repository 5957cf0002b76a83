import type { ReactElement } from "react";
import { allowShortcuts, shortcuts } from "../lib/shortcuts";
import { useStore } from "../lib/useStore";

/** Which keys there are, and what turns them off. */
export function KeyHints(): ReactElement {
  return (
    <div className="keys">
      <label>
        <input
          type="checkbox"
          checked={useStore(shortcuts)}
          onChange={(event) => allowShortcuts(event.target.checked)}
          aria-describedby="keys-help"
        />
        Shortcut keys
      </label>
      <p id="keys-help">
        <kbd>j</kbd> <kbd>k</kbd> next and previous job, <kbd>/</kbd> search its log
      </p>
    </div>
  );
}
