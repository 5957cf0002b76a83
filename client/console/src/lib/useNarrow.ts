import type { Store } from "@jobcast/client";
import { useStore } from "./useStore";

const query = window.matchMedia("(max-width: 800px)"); // as the styles have it

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
