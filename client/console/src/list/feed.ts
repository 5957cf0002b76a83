/** The feed that the page shows: all jobs if the server allows it, or the user's own. */

import type { JobSummary } from "@jobcast/client";
import { type FeedState, useConnection, useJobs } from "@jobcast/client/react";
import { createContext, useContext, useEffect, useState } from "react";
import type { View } from "../lib/view";

const LIMIT = 10_000; // jobs to load at once

export interface ShownFeed extends FeedState {
  /** Whether the user may list all jobs; null until it is known. */
  readonly mayListAll: boolean | null;
  /** Whether the page is connected to the server. */
  readonly isConnected: boolean;
}

export const FeedContext = createContext<ShownFeed | null>(null);

export function useFeed(): ShownFeed {
  const feed = useContext(FeedContext);
  if (feed === null) {
    throw new Error("this component needs a <FeedContext> above it");
  }
  return feed;
}

/** Return a job of the feed; undefined if it is not there. */
export function useSummary(jobId: string | null): JobSummary | undefined {
  const { jobs } = useFeed();
  return jobId === null ? undefined : jobs.find((job) => job.jobId === jobId);
}

/** Follow the feed of a view. */
export function useFeedOf(view: View): ShownFeed {
  const [mayListAll, setMayListAll] = useState<boolean | null>(null);
  const isConnected = useConnection().state === "connected";
  const name = view.feed ?? (mayListAll === false ? "mine" : "all");
  const state = useJobs({ feed: name, limit: LIMIT });
  const answer =
    state.feed !== "all"
      ? null
      : state.status === "live"
        ? true
        : state.error?.code === "feed_not_allowed"
          ? false
          : null;
  useEffect(() => {
    if (answer !== null) {
      setMayListAll(answer);
    }
  }, [answer]);
  return { ...state, mayListAll, isConnected };
}
