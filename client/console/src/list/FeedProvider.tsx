import type { ReactElement, ReactNode } from "react";
import { useRoute } from "../lib/useRoute";
import { FeedContext, useFeedOf } from "./feed";

/** Follow the feed of the address. Only components that use it render when a job changes. */
export function FeedProvider({ children }: { readonly children: ReactNode }): ReactElement {
  return <FeedContext value={useFeedOf(useRoute().view)}>{children}</FeedContext>;
}
