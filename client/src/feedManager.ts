/** Follows feeds over a connection: one join for all views of a feed. */

import { REJOIN_RETRIES, RETRYABLE_CODES, RETRYABLE_JOIN_CODES, retryDelay } from "./backoff.js";
import type { Connection, ConnectionState } from "./connection.js";
import { connectionProblem, type Problem } from "./connectionProblem.js";
import { reportInvalidMessage } from "./dispatch.js";
import { Feed } from "./feed.js";
import type { FeedOptions } from "./feedFilter.js";
import { type FeedStore, FeedView, type FeedViewHost } from "./feedView.js";
import { parse } from "./parse.js";
import { type FeedLeftMessage, isFeed, type JoinFeedRequest, type Messages } from "./protocol.js";
import type { Store } from "./store.js";

/** The client, as its feeds see it. */
export interface FeedHost {
  readonly connection: Store<Connection>;
  /** Open the connection, unless it was opened before. */
  openConnection(): void;
  requestFeed<N extends "join_feed" | "leave_feed">(
    name: N,
    request: Messages[N],
    done: (ack: Messages[`${N}.ack`]) => void,
  ): void;
  /** Run `join` when the callers of this tick have subscribed. */
  deferJoin(join: () => void): void;
  /** Run `leave` when the callers of this tick have unsubscribed, and perhaps subscribed again. */
  deferLeave(leave: () => void): void;
  after(delay: number, action: () => void): void;
  /** Run `publish` once in the next frame. */
  schedule(publish: () => void): void;
}

const MESSAGES = ["feed_snapshot", "feed_job", "feed_gone", "feed_left"] as const;

type FeedMessageName = (typeof MESSAGES)[number];

export function isFeedMessageName(name: string): name is FeedMessageName {
  return (MESSAGES as readonly string[]).includes(name);
}

export class FeedManager implements FeedViewHost {
  readonly #host: FeedHost;
  readonly #feeds = new Map<string, Feed>();
  /** Stops the observation of the connection, while feeds are followed. */
  #stop: (() => void) | null = null;

  constructor(host: FeedHost) {
    this.#host = host;
  }

  /** Whether a feed is followed. */
  get hasFollowers(): boolean {
    return this.#feeds.size > 0;
  }

  get connectionState(): ConnectionState {
    return this.#host.connection.getSnapshot().state;
  }

  get connectionProblem(): Problem | null {
    return connectionProblem(this.#host.connection.getSnapshot());
  }

  /** Return a store of a feed's jobs. */
  open(name: string, options: FeedOptions): FeedStore {
    return new FeedView(name, options, this);
  }

  feed(name: string): Feed | undefined {
    return this.#feeds.get(name);
  }

  onSubscribe(view: FeedView): void {
    const feed = this.#feeds.get(view.name) ?? this.#add(view.name);
    if (!feed.views.has(view)) {
      feed.views.add(view);
      this.#host.openConnection();
      this.#host.deferJoin(() => this.#update(feed));
    }
  }

  onUnsubscribe(view: FeedView): void {
    this.#host.deferLeave(() => {
      const feed = this.#feeds.get(view.name);
      if (!view.isSubscribed && feed?.views.delete(view)) {
        view.reset();
        this.#update(feed);
      }
    });
  }

  onWant(view: FeedView): void {
    const feed = this.#feeds.get(view.name);
    feed && this.#load(feed);
    view.notify();
  }

  onConnect(): void {
    for (const feed of this.#feeds.values()) {
      this.#join(feed);
    }
  }

  onDisconnect(): void {
    for (const feed of this.#feeds.values()) {
      feed.markDisconnected();
    }
  }

  /** The next connection belongs to another user, who may not see the same jobs. */
  onSubjectChange(): void {
    for (const feed of this.#feeds.values()) {
      feed.reset();
    }
  }

  onMessage(name: FeedMessageName, payload: unknown): void {
    reportInvalidMessage(() => this.#apply(name, payload));
  }

  /** Join refused feeds again. */
  retry(): void {
    for (const feed of this.#feeds.values()) {
      if (feed.refusal) {
        this.#join(feed);
      }
    }
  }

  /** Remove all subscribers. The stores keep what they show. */
  close(): void {
    for (const feed of this.#feeds.values()) {
      feed.markDisconnected();
      for (const view of feed.views) {
        view.removeListeners();
      }
    }
  }

  #add(name: string): Feed {
    const publish = (): void => {
      feed.notify();
      this.#load(feed);
    };
    const feed = new Feed(name, () => this.#host.schedule(publish));
    this.#feeds.set(name, feed);
    this.#stop ??= this.#host.connection.subscribe(() => this.#notify());
    if (!isFeed(name)) {
      feed.handleRefused(INVALID_NAME);
    }
    return feed;
  }

  #notify(): void {
    for (const feed of this.#feeds.values()) {
      feed.notify();
    }
  }

  #stopIfIdle(): void {
    if (!this.hasFollowers) {
      this.#stop?.();
      this.#stop = null;
    }
  }

  /** Join, load or leave, as the views of a feed require. */
  #update(feed: Feed): void {
    if (this.#feeds.get(feed.name) !== feed) {
      return;
    }
    if (feed.views.size === 0) {
      this.#feeds.delete(feed.name);
      this.#leave(feed.name);
      this.#joinWaitingFeed();
      this.#stopIfIdle();
    } else if (feed.needsJoin) {
      this.#join(feed);
    } else {
      this.#load(feed);
    }
  }

  #apply(name: FeedMessageName, payload: unknown): void {
    if (name === "feed_snapshot") {
      const snapshot = parse(name, payload);
      this.#feeds.get(snapshot.feed)?.handleSnapshot(snapshot);
    } else if (name === "feed_job") {
      const job = parse(name, payload);
      this.#feeds.get(job.feed)?.handleJob(job);
    } else if (name === "feed_gone") {
      const { feed, job_id } = parse(name, payload);
      this.#feeds.get(feed)?.handleGone(job_id);
    } else {
      this.#handleLeft(parse(name, payload));
    }
  }

  /** The server ended a join. Join again if the reason is temporary. */
  #handleLeft(left: FeedLeftMessage): void {
    const feed = this.#feeds.get(left.feed);
    if (!feed?.acceptsMessages) {
      return; // it belongs to an earlier join
    }
    if (RETRYABLE_CODES.has(left.code)) {
      feed.markDisconnected();
      this.#host.after(retryDelay({}, REJOIN_RETRIES), () => this.#update(feed));
    } else {
      feed.handleRefused(left);
      this.#joinWaitingFeed();
    }
  }

  #join(feed: Feed): void {
    if (this.#mayRequest(feed)) {
      this.#request(feed, feed.beginJoin());
    }
  }

  #load(feed: Feed): void {
    const request = this.#mayRequest(feed) ? feed.beginLoad() : null;
    request && this.#request(feed, request);
  }

  #mayRequest(feed: Feed): boolean {
    const isFollowed = this.#feeds.get(feed.name) === feed && feed.views.size > 0;
    return isFollowed && this.connectionState === "connected" && isFeed(feed.name);
  }

  #request(feed: Feed, request: JoinFeedRequest, retries = 0): void {
    this.#host.requestFeed("join_feed", request, (ack) => {
      if (!feed.isLatest(request)) {
        return;
      }
      if (ack.ok) {
        feed.handleAccepted(ack.total);
      } else if (RETRYABLE_JOIN_CODES.has(ack.code)) {
        if (request.after === undefined && ack.code !== "rate_limited") {
          feed.suspend(ack);
        }
        const retry = (): void => {
          if (feed.isLatest(request)) {
            this.#request(feed, request, retries + 1);
          }
        };
        this.#host.after(retryDelay(ack, retries), retry);
      } else {
        feed.handleRefused(ack);
      }
    });
  }

  /** Leave a feed. Retry until the server accepts it, or until the feed is followed again. */
  #leave(name: string, retries = 0): void {
    if (!isFeed(name)) {
      return;
    }
    this.#host.requestFeed("leave_feed", { feed: name }, (ack) => {
      if (!ack.ok && RETRYABLE_CODES.has(ack.code)) {
        const retry = (): void => {
          if (!this.#feeds.has(name)) {
            this.#leave(name, retries + 1);
          }
        };
        this.#host.after(retryDelay(ack, retries), retry);
      }
    });
  }

  /** Join one feed that was refused because the connection followed too many. */
  #joinWaitingFeed(): void {
    for (const feed of this.#feeds.values()) {
      if (feed.refusal?.code === "too_many_feeds") {
        this.#join(feed);
        return;
      }
    }
  }
}

const INVALID_NAME: Problem = {
  code: "invalid_request",
  message: "invalid feed: mine, all, owner:<subject> and tag:<tag> are allowed",
};
