/** The page's one polite voice. */

import { Value } from "./store";

export const spoken = new Value("");

/** Has a screen reader say it when it has nothing else to say. */
export function announce(text: string): void {
  // The same words again are no change, which nobody would hear.
  spoken.set(text === spoken.getSnapshot() ? `${text}\u00a0` : text);
}
