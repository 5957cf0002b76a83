/** The page's polite live region. */

import { WritableStore } from "./store";

export const liveText = new WritableStore("");

/** Announce a text to screen readers, after what they are reading. */
export function announce(text: string): void {
  // Screen readers ignore an unchanged text; the no-break space makes a repeated text different.
  liveText.set(text === liveText.getSnapshot() ? `${text}\u00a0` : text);
}
