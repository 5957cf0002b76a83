"""The rooms of this process: the feeds that its clients use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from jobcast.aio import BackgroundTasks, Backoff, LoopChange, jittered, shielded
from jobcast.errors import TransportUnavailable
from jobcast.feeds import ALL
from jobcast.realtime import metrics
from jobcast.realtime.feeds.follower import FeedFollower
from jobcast.realtime.feeds.room import FeedRoom
from jobcast.transports import Retention, Source
from jobcast.transports.base import ALL_FEED_FACTOR, FeedChange, SupportsFeeds

LINGER: Final = 10.0  # seconds for which an unused room stays: a client that polls reuses it
MAX_LINGERING: Final = 50_000  # jobs in all unused rooms
READING_AT_ONCE: Final = 8  # feeds that are read concurrently
READ_TIMEOUT: Final = 10.0  # seconds that a request waits for the read of a feed
READ_AGAIN: Final = 120.0  # maximum interval between reads of a followed feed, in seconds
RETRY_DELAY: Final = 0.5  # initial delay between attempts to read a feed again, in seconds
LONGEST_DELAY: Final = 10.0  # maximum delay between attempts, in seconds

logger = logging.getLogger(__name__)


class FeedRooms:
    """The feeds that clients of this process use. Only these are subscribed.

    A room is read when its first user arrives, after an interruption of the transport, and
    regularly: a read repairs the feed if a process died between two writes.

    Args:
        source: the transport's source.
        retention: the size of feeds.
    """

    def __init__(self, source: Source, retention: Retention) -> None:
        self._source = source
        self._feeds = source if isinstance(source, SupportsFeeds) and retention.feed_size else None
        self._size = retention.feed_size
        self._change = LoopChange()
        self._reset()

    def _reset(self) -> None:
        """Reset the state that belongs to one event loop."""
        self._rooms: dict[str, FeedRoom] = {}
        self._lingering: dict[str, FeedRoom] = {}  # the unused rooms, the longest unused first
        self._reads = asyncio.Semaphore(READING_AT_ONCE)
        self._tasks = BackgroundTasks(_log_problem)

    @property
    def are_available(self) -> bool:
        """Whether the transport has feeds."""
        return self._feeds is not None

    def start(self) -> None:
        """Start to receive changes in the running event loop, once for each start of the source."""
        if self._change.happened():
            metrics.FEEDS.dec(len(self._rooms))
            self._reset()
        if self._feeds is not None:
            self._feeds.watch_feeds(self._receive)
            self._tasks.spawn(self._read_regularly())

    async def aclose(self) -> None:
        for room in self._rooms.values():
            self._keep(room)
        metrics.FEEDS.dec(len(self._rooms))
        self._rooms.clear()
        await self._tasks.cancel()

    @asynccontextmanager
    async def use(self, feed: str) -> AsyncIterator[FeedRoom]:
        """Provide a room with the current jobs of its feed.

        The room stays open within the context, and as long as it has followers.

        Raises:
            TransportUnavailable: the feed cannot be read now.
        """
        room = self._rooms.get(feed) or self._open(feed)
        room.users += 1
        self._keep(room)
        try:
            await self._current(room)
            yield room
        finally:
            room.users -= 1
            self._release(room)

    def follow(self, follower: FeedFollower) -> None:
        """Add a follower to its room, which the caller uses."""
        follower.room.followers[follower] = None
        metrics.FEED_FOLLOWERS.inc()

    def leave(self, follower: FeedFollower) -> None:
        """Remove a follower, which then gets no further changes. Ignore an unknown one."""
        if follower in follower.room.followers:
            del follower.room.followers[follower]
            metrics.FEED_FOLLOWERS.dec()
            self._release(follower.room)

    def resumed(self) -> None:
        """Read all rooms again after an interruption, during which changes may have been lost."""
        for room in self._rooms.values():
            room.was_interrupted = True
            self._read_soon(room)

    def _open(self, feed: str) -> FeedRoom:
        room = FeedRoom(feed, self._size * (ALL_FEED_FACTOR if feed == ALL else 1))
        room.reading = self._tasks.spawn(self._load(room))
        self._rooms[feed] = room
        metrics.FEEDS.inc()
        return room

    def _keep(self, room: FeedRoom) -> None:
        """Cancel the closing of a room that was unused."""
        self._lingering.pop(room.feed, None)
        if room.linger is not None:
            room.linger.cancel()
            room.linger = None

    def _release(self, room: FeedRoom) -> None:
        """Have a room close after a while if it is unused, or at once if it could not be read."""
        if not room.is_unused or self._rooms.get(room.feed) is not room:
            return
        if not _was_read(room):
            self._close(room)
            return
        self._keep(room)
        self._lingering[room.feed] = room
        room.linger = asyncio.get_running_loop().call_later(LINGER, self._close, room)
        while sum(unused.weight for unused in self._lingering.values()) > MAX_LINGERING:
            self._close(next(iter(self._lingering.values())))

    def _close(self, room: FeedRoom) -> None:
        self._keep(room)
        del self._rooms[room.feed]
        metrics.FEEDS.dec()
        if room.reading is not None:
            room.reading.cancel()
        self._tasks.spawn(self._unsubscribe(room.feed))

    async def _unsubscribe(self, feed: str) -> None:
        if feed not in self._rooms and self._feeds is not None:
            await self._feeds.unsubscribe_feed(feed)

    def _receive(self, feed: str, change: FeedChange) -> None:
        room = self._rooms.get(feed)
        if room is not None:
            metrics.FEED_RECEIVED.inc()
            room.change(change)

    # --- reads ------------------------------------------------------------------------------------

    async def _current(self, room: FeedRoom) -> None:
        """Wait until a room has the current jobs of its feed.

        Raises:
            TransportUnavailable: the feed cannot be read now.
        """
        if not self._source.ready:
            raise TransportUnavailable("the transport is not reached")
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                while room.reading is not None and not _was_read(room):
                    # Shielded because other requests wait for the same read.
                    await shielded(room.reading)
        except TimeoutError:
            raise TransportUnavailable(f"the feed was not read within {READ_TIMEOUT:g} s") from None

    async def _load(self, room: FeedRoom) -> None:
        """Subscribe to a feed and read it.

        Raises:
            TransportUnavailable: the transport is unavailable.
        """
        if self._feeds is None:
            raise TransportUnavailable("the transport has no feeds")
        await self._feeds.subscribe_feed(room.feed)
        await self._read(room, self._feeds)

    async def _read(self, room: FeedRoom, feeds: SupportsFeeds) -> None:
        async with self._reads:
            room.was_interrupted = True
            while room.was_interrupted:
                room.begin_read()
                room.finish_read(await feeds.read_feed(room.feed))

    def _read_soon(self, room: FeedRoom) -> None:
        """Read a feed again, unless it is being read: then that read is repeated if necessary."""
        if self._feeds is not None and (room.reading is None or room.reading.done()):
            room.reading = self._tasks.spawn(self._read_again(room, self._feeds))

    async def _read_again(self, room: FeedRoom, feeds: SupportsFeeds) -> None:
        backoff = Backoff(RETRY_DELAY, LONGEST_DELAY)
        while True:
            try:
                await self._read(room, feeds)
                return
            except TransportUnavailable as exc:
                level = logging.DEBUG if backoff.failures else logging.INFO
                delay = backoff.delay()
                logger.log(
                    level, "feed %r: could not read it again: %s; its followers may miss changes;"
                    " retrying in %.1f s", room.feed, exc, delay,
                )  # fmt: skip
            await asyncio.sleep(delay)
            backoff.failed()

    async def _read_regularly(self) -> None:
        while True:
            await asyncio.sleep(jittered(READ_AGAIN, 0.5, 1.0))
            for room in self._rooms.values():
                self._read_soon(room)


def _was_read(room: FeedRoom) -> bool:
    """Return whether the latest read of a room has succeeded."""
    reading = room.reading
    return (
        reading is not None
        and reading.done()
        and not reading.cancelled()
        and reading.exception() is None
    )


def _log_problem(problem: BaseException) -> None:
    # The request that waits for a read raises the error too, unless it was cancelled.
    logger.info("could not read a feed: %s; the next request for it reads it again", problem)
