"""Feeds of the jobs in every pool of Celery, and of processes that exit after each job."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from jobcast.feeds import JobSummary
from jobcast.transports import open_manager
from jobcast.transports.base import FeedChange, SupportsFeeds
from tests import jobs
from tests.conftest import Valkey
from tests.support import Worker, eventually, running

Send = Callable[..., str]

POOLS = {
    "prefork": ["--pool=prefork", "--concurrency=2"],
    "recycled": ["--pool=prefork", "--concurrency=1", "--max-tasks-per-child=1"],
    "threads": ["--pool=threads", "--concurrency=4"],
    "gevent": ["--pool=gevent", "--concurrency=4"],
    "eventlet": ["--pool=eventlet", "--concurrency=4"],
    "solo": ["--pool=solo"],
}


@pytest.mark.parametrize("pool", POOLS)
async def test_follower_of_a_feed_sees_each_job_end(
    pool: str, valkey: Valkey, send: Send, tmp_path: Path
) -> None:
    url, owner = valkey.url, f"owner-{secrets.token_hex(4)}"
    changes: list[FeedChange] = []

    async def resumed() -> None:
        raise AssertionError("nothing was interrupted")

    source = open_manager(url).source
    assert isinstance(source, SupportsFeeds)
    source.start(lambda *_: None, resumed)
    source.watch_feeds(lambda _, change: changes.append(change))
    await source.subscribe_feed(f"owner:{owner}")
    with running(Worker(tmp_path / "log", url, url, *POOLS[pool])) as worker:
        worker.ready()
        job_ids = [send(worker, jobs.count, 20 + n, owner=owner) for n in range(4)]

        def ended() -> dict[str, JobSummary]:
            found = (change for change in changes if isinstance(change, JobSummary))
            return {job.job_id: job for job in found if job.has_ended}

        await eventually(lambda: {*ended()} == {*job_ids}, "endings")
        assert {job.status for job in ended().values()} == {"complete"}
        assert {job.percentage for job in ended().values()} == {100}
        listed = await source.read_feed(f"owner:{owner}")
        assert {job.job_id: job for job in listed} == ended()
        assert worker.stop() == 0
        assert "Traceback" not in worker.log
    await source.aclose()
