"""A server in the process of the test, and a publisher to its transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import uvicorn
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from jobcast.aio import cancel_and_wait
from jobcast.events import JobComplete, JobEvent, JobInfo, JobStatus
from jobcast.feeds import ALL, OWNER_PREFIX, feeds_of
from jobcast.realtime import Gateway, create_app
from jobcast.settings import Settings
from jobcast.transports import Origin, Outgoing, TransportPublisher, open_publisher
from jobcast.transports.base import SupportsFeeds
from jobcast.transports.runs import UNKNOWN_RUN, Run
from tests.support import TIMEOUT, Follower, eventually, free_port
from tests.support.feed_client import FeedView

RENEWAL = 0.1  # seconds between renewals of leases

Options = Callable[..., Settings]


class Site(NamedTuple):
    """A server in this process, and a publisher to its transport."""

    url: str
    settings: Settings
    app: Starlette
    publisher: TransportPublisher

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway

    async def publish(
        self, *events: JobEvent, owner: str | None = "alice", run: Run = UNKNOWN_RUN
    ) -> None:
        """Publish events of jobs of an owner."""
        batch = [Outgoing.of(event, Origin(owner=owner, run=run)) for event in events]
        await asyncio.to_thread(self.publisher.publish, batch)

    async def start(self, *jobs: str, owner: str | None = "alice", **info: Any) -> None:
        """Publish the start of jobs, one after the other, so that they differ in their age.

        Wait until they are in their feeds, which some transports write after the events.
        """
        for job_id in jobs:
            await self.publish(started(job_id, **info), owner=owner)
        for feed in feeds_of(JobInfo(owner=owner, tags=info.get("tags", ()))):
            await self.wait_in(feed, *jobs, status="started")

    async def complete(self, *jobs: str, owner: str | None = "alice") -> None:
        """Publish the end of jobs, and wait until their feeds have it."""
        await self.publish(
            *(JobComplete(job_id=job_id, result={"secret": 1}) for job_id in jobs), owner=owner
        )
        await self.wait_in(ALL if owner is None else OWNER_PREFIX + owner, *jobs, status="complete")

    async def wait_in(self, feed: str, *jobs: str, status: str) -> None:
        """Wait until a feed has these jobs in this state."""
        source = self.gateway.hub._source
        assert isinstance(source, SupportsFeeds)
        missing = set(jobs)
        async with asyncio.timeout(TIMEOUT):
            while missing:
                found = await source.read_feed(feed)
                missing -= {job.job_id for job in found if job.status == status}
                await asyncio.sleep(0.02)


def started(job_id: str, **info: Any) -> JobStatus:
    return JobStatus(job_id=job_id, status="started", task="shop.export", attempt=1, **info)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Site]:
    """Run a server in this event loop."""
    app = create_app(settings)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_config=None, ws="websockets-sansio", lifespan="on")
    )
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "server")
    publisher = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    renewing = asyncio.create_task(_renew(publisher))
    try:
        yield Site(f"http://127.0.0.1:{port}", settings, app, publisher)
    finally:
        await cancel_and_wait(renewing)
        publisher.close()
        server.should_exit = True
        await task


async def _renew(publisher: Any) -> None:
    """Renew leases, as every worker does regularly; this also writes summaries that are due."""
    while True:
        await asyncio.to_thread(publisher.renew, (), 60.0)
        await asyncio.sleep(RENEWAL)


async def join(follower: Follower, feed: str = "mine", **request: Any) -> FeedView:
    """Join a feed. Returns the view of its client after the snapshot."""
    view = FeedView(feed, follower.transcript.events)
    answer = await follower.request("join_feed", {"feed": feed, **request})
    assert answer["ok"], answer
    view.total = answer["total"]
    await view.until(lambda: view.is_complete, "the snapshot")
    return view


def names_of(events: Sequence[tuple[Any, ...]], feed: str) -> list[str]:
    """The names of the events about a feed."""
    return [name for name, payload, *_ in events if payload.get("feed") == feed]


def metric(name: str) -> float:
    value = REGISTRY.get_sample_value(name)
    assert value is not None
    return value
