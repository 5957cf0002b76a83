import type { Store } from "@jobcast/client";
import { useStore } from "./useStore";

// As the styles have it: a phone, upright or lying, and a desktop that is zoomed.
const query = window.matchMedia("(max-width: 50em), (max-height: 31em) and (max-width: 64em)");

const narrow: Store<boolean> = {
  subscribe(listener) {
    query.addEventListener("change", listener);
    return () => query.removeEventListener("change", listener);
  },
  getSnapshot: () => query.matches,
};

/** Whether there is room for one thing at a time only: the list, or a job. */
export function useNarrow(): boolean {
  return useStore(narrow);
}
