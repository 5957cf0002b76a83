"""The feeds of the asyncio client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from msgspec import Struct

from jobcast.client.connection import Connection, Token
from jobcast.client.followed_feed import FeedItem, FeedReader, FollowedFeed
from jobcast.client.memberships import MembershipKind, Memberships
from jobcast.errors import FeedRefused
from jobcast.events import parse_request
from jobcast.feeds import FEED_EVENTS, FeedLeft, JobSummary, JoinFeed, JoinFeedAccepted

FEEDS: Final = MembershipKind(join="join_feed", leave="leave_feed", key="feed", error=FeedRefused)


class Feeds:
    """The feeds that a client follows on one connection.

    A connection joins a feed once, with one filter.

    Args:
        connection: the connection.
        open_another: opens the feeds of another connection to the same server.
    """

    def __init__(
        self,
        connection: Connection,
        open_another: Callable[[], AbstractAsyncContextManager[Feeds]],
    ) -> None:
        self._connection = connection
        self._members: Memberships[FollowedFeed] = Memberships(connection, FEEDS, self._accepted)
        self.open_another = open_another
        self.join_all = self._members.join_all
        self.refuse_all = self._members.refuse_all

    def can_follow(self, request: JoinFeed) -> bool:
        """Return whether the feed is not joined with another filter or limit."""
        followed = self._members.get(request.feed)
        return followed is None or followed.request == request

    def follow(self, request: JoinFeed) -> FollowedFeed:
        """Return the followed feed of a request."""
        self._connection.check_open()
        followed = self._members.get(request.feed)
        if followed is None:
            followed = FollowedFeed(request)
            self._members.follow(request.feed, followed)
        return followed

    def load_more(self, followed: FollowedFeed) -> None:
        """Request more of the older jobs of a followed feed."""
        followed.want_more()
        if followed.is_loading:
            self._join_again(followed)

    def release(self, followed: FollowedFeed) -> None:
        """Leave a feed that no longer has a reader."""
        if not followed.readers:
            self._members.release(followed.request.feed, followed)

    def receive(self, name: str, payload: Any) -> None:
        """Apply a message about a feed.

        Raises:
            InvalidMessage: it violates the protocol.
        """
        message = parse_request(name, payload, FEED_EVENTS[name])
        if isinstance(message, FeedLeft):
            self._members.left(message.feed, message.code, message.message)
        elif (followed := self._members.get(message.feed)) is not None:
            followed.receive(message)
            joining = followed.joining
            if followed.needs_older_jobs and joining is not None and joining.done():
                self._join_again(followed)

    def _accepted(self, followed: FollowedFeed, answer: Struct) -> None:
        if isinstance(answer, JoinFeedAccepted):
            followed.accept(answer.total)
            # Jobs may have left the list before this answer.
            if followed.needs_older_jobs:
                self._join_again(followed)

    def _join_again(self, followed: FollowedFeed) -> None:
        name = followed.request.feed
        self._members.join_again(name, followed, lambda: followed.needs_older_jobs)


@asynccontextmanager
async def open_feeds(url: str, token: Token, namespace: str) -> AsyncIterator[Feeds]:
    """Open a connection for feeds only.

    Raises:
        ConnectionRefused: as for ``JobClient``.
    """
    connection = Connection(
        url, token, namespace,
        on_state=lambda _: None,
        on_event=lambda name, payload: feeds.receive(name, payload),
        on_reconnect=lambda: feeds.join_all(),
        on_end=lambda problem: feeds.refuse_all(problem),
    )  # fmt: skip
    feeds = Feeds(connection, partial(open_feeds, url, token, namespace))
    await connection.open()
    try:
        yield feeds
    finally:
        await connection.close()


class Feed:
    """A live list of jobs. ``JobClient.feed`` makes it; ``async with`` opens it.

    Once it is open, :attr:`jobs` is the list as it is now. Iteration yields the changes after the
    list that the feed opened with: a :class:`~jobcast.feeds.JobSummary` of a job that is new or has
    changed, or a :class:`~jobcast.feeds.FeedGone` if a job has left the list. A slow reader gets
    the latest change of each job only. A lost connection delays changes; none is missed.

    Raises:
        FeedRefused: the server refused the feed; or, in an iteration, the right to it has ended.
        ConnectionRefused: the server no longer accepts the token, or the client is closed
            (code ``closed``).

    >>> async with client.feed("mine", status="running") as feed:
    ...     async for change in feed:
    ...         print(len(feed.jobs), change)
    """

    def __init__(self, request: JoinFeed, feeds: Feeds) -> None:
        self._request = request
        self._feeds = feeds
        self._opened = feeds  # those of the connection that the open feed uses
        self._followed = FollowedFeed(request)
        self._changed = asyncio.Event()
        self._reader = FeedReader(request.feed, self._changed.set)
        self._exits = AsyncExitStack()

    @property
    def name(self) -> str:
        """The name of the feed."""
        return self._request.feed

    @property
    def jobs(self) -> tuple[JobSummary, ...]:
        """The jobs of the list, the newest first. Empty until the feed is open."""
        return self._followed.jobs

    @property
    def total(self) -> int | None:
        """The number of jobs of the feed that match. None until the feed is open.

        It is exact while the list has all of them, and else as of the latest join, apart from the
        changes of the list.
        """
        return self._followed.total

    @property
    def has_more(self) -> bool:
        """Whether the feed has older jobs that match, beyond those of the list."""
        return self._followed.has_more

    async def load_more(self) -> None:
        """Extend the list by as many older jobs as the limit, and wait until it has them.

        An iteration yields the older jobs as well. Without older jobs, or with 10,000 jobs in the
        list, nothing changes.

        Raises:
            FeedRefused, ConnectionRefused: as in an iteration.

        >>> async with client.feed("all", limit=50) as feed:
        ...     while feed.has_more and len(feed.jobs) < 200:
        ...         await feed.load_more()
        """
        if self._reader not in self._followed.readers:
            return  # not open
        self._opened.load_more(self._followed)
        while self._followed.is_loading:
            await self._wait_changed()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            feeds = self._feeds
            if not feeds.can_follow(self._request):
                feeds = await exits.enter_async_context(feeds.open_another())
            self._opened = feeds
            self._followed = followed = feeds.follow(self._request)
            exits.callback(feeds.release, followed)
            self._reader = followed.attach(self._changed.set)
            exits.callback(followed.readers.remove, self._reader)
            while not (followed.has_snapshot and followed.total is not None):
                await self._wait_changed()
            self._reader.skip_all()
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedItem:
        while (item := self._reader.take()) is None:
            await self._wait_changed()
        return item

    async def _wait_changed(self) -> None:
        """Wait for the next change.

        Raises:
            ClientError: there is none, because the feed has ended.
        """
        if self._reader.problem is not None:
            raise self._reader.problem
        await self._changed.wait()
        self._changed.clear()
