/** Values of open lists: statuses, levels and reasons that this version of the page may not know. */

import { upperFirst } from "./formatNumber";

/** Return a value as a label: `waiting_for_parent` is `Waiting for parent`. */
export function labelOf(value: string): string {
  return upperFirst(value.replaceAll("_", " "));
}
