import type { Store } from "@jobcast/client";
import { useSyncExternalStore } from "react";

export function useStore<T>(store: Store<T>): T {
  return useSyncExternalStore(store.subscribe, store.getSnapshot);
}
