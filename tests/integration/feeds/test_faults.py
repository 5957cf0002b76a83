"""Lists after faults of Redis that break no connection: a paused server, and refused writes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import pytest

from jobcast.events import JobInfo
from jobcast.publishing.job import Job
from jobcast.publishing.publisher import Publisher
from jobcast.settings import Settings
from jobcast.transports import Origin, Run, open_publisher
from jobcast.transports.runs import draw
from tests.conftest import Valkey
from tests.integration.feeds.site import join, serving
from tests.support import SECRET, StubRuntime, eventually, following
from tests.support.feed_client import FeedView
from tests.support.http_server import Token
from tests.support.refusals import BUSY, MISCONF, NOREPLICAS, OOM, refusing

TAG = "tag:night"
FEEDS = ("mine", TAG, "all")
PAUSE = 3.0  # seconds: longer than the publisher and the server wait for an answer


class Worker(NamedTuple):
    """A publisher that repeats what the store has not confirmed, as in a worker."""

    publisher: Publisher

    def start(self, *names: str) -> list[Job]:
        """Begin jobs of alice, each with the tag."""
        jobs = [Job(StubRuntime(self.publisher), name, origin=_origin()) for name in names]
        for job in jobs:
            job.info = JobInfo(task="shop.export", tags=("night",))
            job.started()
        return jobs


def _origin() -> Origin:
    return Origin(owner="alice", run=Run(sending=draw(), attempt=1, delivery=draw()))


def _complete(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.complete()


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Worker]:
    publisher = Publisher(open_publisher(settings.url, settings.retention), shown_url="the store")
    try:
        yield Worker(publisher)
    finally:
        await asyncio.to_thread(publisher.close)


@contextmanager
def paused(server: Valkey) -> Iterator[None]:
    server.popen.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.popen.send_signal(signal.SIGCONT)


async def _until_all_show(views: Sequence[FeedView], jobs: dict[str, str]) -> None:
    for view in views:
        await view.until_shows(jobs)


async def test_lists_are_correct_after_a_pause_of_redis(own_valkey: Valkey, token: Token) -> None:
    settings = Settings(url=own_valkey.url, jwt_secret=SECRET, drain_seconds=0)
    async with (
        serving(settings) as site,
        working(settings) as worker,
        following(site.url, token("alice", feeds=["*"])) as alice,
    ):
        views = [await join(alice, feed) for feed in FEEDS]
        ends, stays = worker.start("ends", "stays")
        await _until_all_show(views, {"ends": "started", "stays": "started"})
        with paused(own_valkey):
            await asyncio.to_thread(_complete, [ends])
            worker.start("new")
            # The pause is the fault, not a wait for a condition.
            await asyncio.sleep(PAUSE)
        expected = {"ends": "complete", "stays": "started", "new": "started"}
        await _until_all_show(views, expected)
        await asyncio.to_thread(_complete, [stays])
        await _until_all_show(views, expected | {"stays": "complete"})


@pytest.mark.parametrize("code", [MISCONF, NOREPLICAS, BUSY, OOM])
async def test_lists_are_correct_after_refused_writes(
    own_valkey: Valkey, token: Token, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(url=own_valkey.url, jwt_secret=SECRET, drain_seconds=0)
    async with (
        serving(settings) as site,
        working(settings) as worker,
        following(site.url, token("alice", feeds=["*"])) as alice,
    ):
        views = [await join(alice, feed) for feed in FEEDS]
        ends, stays = worker.start("ends", "stays")
        await _until_all_show(views, {"ends": "started", "stays": "started"})
        with refusing(own_valkey, code):
            await asyncio.to_thread(_complete, [ends])
            worker.start("new")
            await eventually(lambda: "cannot reach the store" in caplog.text, "warning")
        expected = {"ends": "complete", "stays": "started", "new": "started"}
        await _until_all_show(views, expected)
        await asyncio.to_thread(_complete, [stays])
        await _until_all_show(views, expected | {"stays": "complete"})
