import type { Store } from "@jobcast/client";
import { useStore } from "./useStore";

// The same breakpoints as in the styles: phones in both orientations, and zoomed desktops.
const query = window.matchMedia("(max-width: 50em), (max-height: 31em) and (max-width: 64em)");

const narrow: Store<boolean> = {
  subscribe(listener) {
    query.addEventListener("change", listener);
    return () => query.removeEventListener("change", listener);
  },
  getSnapshot: () => query.matches,
};

/** Return whether the screen has room only for either the list or a job. */
export function useNarrow(): boolean {
  return useStore(narrow);
}
