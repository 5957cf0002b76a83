import { useMemo } from "react";
import { hash, hashWithView, parseRoute, type Route, replaceHash } from "./route";
import { useStore } from "./useStore";
import type { View } from "./view";

/** Return the page of the address, and what the list next to it shows. */
export function useRoute(): Route {
  const text = useStore(hash);
  return useMemo(() => parseRoute(text), [text]);
}

/** Change what the list shows. The address has the new view, without another entry in the history. */
export function changeView(change: Partial<View>): void {
  const route = parseRoute(hash.getSnapshot());
  replaceHash(hashWithView(route, { ...route.view, ...change }));
}
