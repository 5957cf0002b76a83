/** A feed that may change or be absent, for the bindings to frameworks. */

import type { JobClient } from "./client.js";
import type { FeedOptions } from "./feedFilter.js";
import { type FeedState, unfollowedFeedState } from "./feedView.js";
import type { Store } from "./store.js";

/** A feed and its options. */
export interface FeedQuery extends FeedOptions {
  /** `mine`, `all`, `owner:<subject>` or `tag:<tag>`; without a name there are no jobs. */
  readonly feed: string | null | undefined;
}

/** Return the store of a feed. Without a name (`null`, `undefined` or `""`) it has no jobs. */
export function followedFeed(client: JobClient, { feed, ...options }: FeedQuery): Store<FeedState> {
  return feed ? client.feed(feed, options) : NO_FEED;
}

/** Return the state of a feed before it is followed. */
export function unfollowedFeed({ feed }: FeedQuery): FeedState {
  return feed ? unfollowedFeedState(feed) : NO_FEED_STATE;
}

/** Return a text that is the same for equal queries. `JSON.parse` returns the query. */
export function keyOfQuery({ feed, status, tag, task, owner, since, limit }: FeedQuery): string {
  return JSON.stringify({ feed, status, tag, task, owner, since, limit });
}

/** The state without a feed. */
export const NO_FEED_STATE: FeedState = unfollowedFeedState("");

const NO_FEED: Store<FeedState> = {
  subscribe: () => () => {},
  getSnapshot: () => NO_FEED_STATE,
};
