"""Both ends of a transport with feeds, and the changes of feeds received so far."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from msgspec import Struct

from jobcast.events import JobEvent
from jobcast.feeds import JobSummary
from jobcast.testing.ends import TIMEOUT, batch_of, eventually, log, new_job_id
from jobcast.transports import (
    DEFAULT_PREFIX,
    NO_ORIGIN,
    ClientManager,
    Origin,
    Retention,
    TransportPublisher,
    open_manager,
    open_publisher,
)
from jobcast.transports.base import FeedChange, FeedRemoval, SupportsFeeds

FEED_SIZE: Final = 5
KEPT_IN_FEEDS: Final = Retention(ttl=60, size=100, feed_size=FEED_SIZE)


class FeedEnds(Struct):
    """Both ends of a transport, with a deployment of its own, and the received changes of feeds."""

    url: str
    worker_url: str
    prefix: str
    retention: Retention
    publisher: TransportPublisher
    manager: ClientManager
    changes: list[tuple[str, FeedChange]]
    resumed: list[float]

    @property
    def source(self) -> SupportsFeeds:
        source = self.manager.source
        assert isinstance(source, SupportsFeeds), "the source has no feeds"
        return source

    async def publish(self, *events: JobEvent, origin: Origin = NO_ORIGIN, first: int = 0) -> None:
        """Publish events like a worker, numbered from ``first``, or without numbers if it is 0."""
        await asyncio.to_thread(self.publisher.publish, batch_of(events, origin, first))

    async def wait_feed(
        self, feed: str, condition: Callable[[list[JobSummary]], object]
    ) -> list[JobSummary]:
        """Read a feed until its jobs fulfil the condition, and return them."""
        deadline = time.monotonic() + TIMEOUT
        while not condition(jobs := await self.source.read_feed(feed)):
            assert time.monotonic() < deadline, f"{feed} has only {jobs}"
            await asyncio.sleep(0.02)
        return jobs

    async def wait_ids(self, feed: str, *ids: str) -> list[JobSummary]:
        """Read a feed until it has these jobs in this order, and return them."""
        return await self.wait_feed(feed, lambda jobs: [job.job_id for job in jobs] == [*ids])

    async def wait_change(self, feed: str, condition: Callable[[Any], object]) -> FeedChange:
        """Wait for a change of a feed that fulfils the condition, and return it."""
        found: list[FeedChange] = []

        def arrived() -> bool:
            found.extend(c for name, c in self.changes if name == feed and condition(c))
            return bool(found)

        await eventually(arrived, f"change of {feed}")
        return found[0]

    async def wait_summary(self, feed: str, job_id: str, status: str) -> JobSummary:
        """Wait until a feed has a job with this status, and return the change."""
        change = await self.wait_change(
            feed,
            lambda change: (
                isinstance(change, JobSummary)
                and (change.job_id, change.status) == (job_id, status)
            ),
        )
        assert isinstance(change, JobSummary)
        return change

    async def wait_change_after_publishing(
        self, feed: str, condition: Callable[[Any], object]
    ) -> FeedChange:
        """Wait like :meth:`wait_change`; some transports need further events to send a change."""
        found: list[FeedChange] = []
        deadline = time.monotonic() + TIMEOUT
        while not found:
            assert time.monotonic() < deadline, f"no change of {feed} within {TIMEOUT:.0f} s"
            await self.publish(log(new_job_id()))
            await asyncio.sleep(0.02)
            found = [c for name, c in self.changes if name == feed and condition(c)]
        return found[0]

    async def wait_removal(self, feed: str, job_id: str) -> FeedChange:
        """Wait until a job leaves a feed."""
        return await self.wait_change(
            feed, lambda change: isinstance(change, FeedRemoval) and change.job_id == job_id
        )

    def summaries(self, feed: str, job_id: str) -> list[JobSummary]:
        """Return the summaries of a job that were received for a feed."""
        return [
            change for name, change in self.changes
            if name == feed and isinstance(change, JobSummary) and change.job_id == job_id
        ]  # fmt: skip


@asynccontextmanager
async def both_feed_ends(
    url: str, worker_url: str, retention: Retention = KEPT_IN_FEEDS
) -> AsyncIterator[FeedEnds]:
    """Open both ends of the transport for a deployment of their own, and close them on exit."""
    prefix = f"{DEFAULT_PREFIX}:feeds-{secrets.token_hex(6)}"
    publisher = open_publisher(worker_url, retention, prefix=prefix)
    manager = open_manager(url, retention, prefix=prefix)
    ends = FeedEnds(url, worker_url, prefix, retention, publisher, manager, [], [])

    async def resumed() -> None:
        ends.resumed.append(time.monotonic())

    manager.source.start(lambda *_: None, resumed)
    ends.source.watch_feeds(lambda feed, change: ends.changes.append((feed, change)))
    try:
        await eventually(lambda: manager.source.ready, "source that is ready")
        yield ends
    finally:
        await manager.aclose()
        await asyncio.to_thread(publisher.close)


FeedTest = Callable[[Any, FeedEnds, str], Awaitable[None]]


def on_feeds(
    retention: Retention = KEPT_IN_FEEDS,
) -> Callable[[FeedTest], Callable[[Any, str, str], None]]:
    """Turn a coroutine into a test of a deployment with this retention.

    The test gets both ends, and the name of an owner.
    """

    def decorate(test: FeedTest) -> Callable[[Any, str, str], None]:
        async def run(self: Any, url: str, worker_url: str) -> None:
            async with both_feed_ends(url, worker_url, retention) as ends:
                await test(self, ends, f"owner-{secrets.token_hex(4)}")

        def run_in_loop(self: Any, transport_url: str, worker_url: str) -> None:
            asyncio.run(run(self, transport_url, worker_url))

        run_in_loop.__name__, run_in_loop.__doc__ = test.__name__, test.__doc__
        return run_in_loop

    return decorate
