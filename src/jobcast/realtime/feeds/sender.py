"""The sending of feeds to one connection, within the limit of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from jobcast.realtime import metrics
from jobcast.realtime.connection.budget import TokenBucket
from jobcast.realtime.connection.frames import FrameBatch
from jobcast.realtime.feeds.follower import FeedFollower
from jobcast.realtime.outlet import Outlet
from jobcast.settings import Settings
from jobcast.transports.base import Message

FLUSH_INTERVAL: Final = 0.5  # seconds between two messages about a job that has not ended
# Parts of JOBCAST_SEND_BUFFER: the characters that may wait before a flush, and the size of a flush
# without its last message. Feeds alone never exceed the buffer.
MAX_WAITING: Final = 1 / 8
MAX_FLUSH: Final = 1 / 4


class FeedSender:
    """The feeds of one connection, which share its limit ``JOBCAST_FEED_RATE``.

    A connection whose client reads slowly gets nothing until its queue is short again. Meanwhile
    the changes stay pending, one for each job.

    Args:
        outlet: the connection.
        settings: the limits.
        namespace: the Socket.IO namespace of the packets.
    """

    __slots__ = (
        "_bucket", "_flushed_at", "_is_hurrying", "_max_flush", "_max_waiting", "_namespace",
        "_outlet", "_timer", "followers",
    )  # fmt: skip

    def __init__(self, outlet: Outlet, settings: Settings, namespace: str) -> None:
        self._outlet = outlet
        self._namespace = namespace
        self._max_waiting = settings.send_buffer * MAX_WAITING
        self._max_flush = int(settings.send_buffer * MAX_FLUSH)
        rate = settings.feed_rate
        self._bucket = TokenBucket(rate, max(1.0, rate * FLUSH_INTERVAL))
        self._timer: asyncio.TimerHandle | None = None
        self._flushed_at = float("-inf")  # the time of the latest flush, by the event loop's clock
        self._is_hurrying = False  # whether a flush of endings is scheduled
        self.followers: dict[str, FeedFollower] = {}  # by the names that the client uses

    def wake(self, *, urgent: bool = False) -> None:
        """Schedule a flush because a follower has pending changes.

        Args:
            urgent: whether a job has ended, which does not wait for the interval.
        """
        loop = asyncio.get_running_loop()
        if urgent and not self._is_hurrying:
            self._is_hurrying = True
            loop.call_soon(self._flush_endings)
        if self._timer is None:
            due = max(self._flushed_at + FLUSH_INTERVAL, loop.time())
            self._timer = loop.call_at(due, self._flush)

    def remove(self, name: str) -> None:
        """Remove a follower, and send none of its changes."""
        del self.followers[name]
        if self._timer is not None and not self.followers:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self._timer = None
        self._flushed_at = asyncio.get_running_loop().time()
        self._send(urgent=False)
        if any(follower.has_pending for follower in self.followers.values()):
            self.wake()

    def _flush_endings(self) -> None:
        self._is_hurrying = False
        self._send(urgent=True)

    def _send(self, *, urgent: bool) -> None:
        if self._outlet.closed or self._outlet.waiting > self._max_waiting:
            return
        messages: list[Message] = []
        limit, characters = int(self._bucket.level), self._max_flush
        for follower in self._in_turn():
            taken = follower.take(limit - len(messages), characters, urgent=urgent)
            messages += taken
            characters -= sum(len(message.packet) for message in taken)
        if messages:
            self._bucket.take(len(messages))
            metrics.FEED_DELIVERED.inc(len(messages))
            self._outlet.send(FrameBatch(messages, namespace=self._namespace))

    def _in_turn(self) -> Iterator[FeedFollower]:
        """Yield the followers, each time another one first: it may use the whole limit."""
        for name in list(self.followers)[:1]:
            self.followers[name] = self.followers.pop(name)
        return (follower for follower in list(self.followers.values()) if follower.has_pending)
