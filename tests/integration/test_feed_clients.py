"""Feeds of the Python clients, with a real server, store and worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from jobcast.client import Feed, FeedGone, JobClient, JobSummary
from jobcast.client.sync import JobClient as SyncJobClient
from jobcast.errors import ConnectionRefused, FeedRefused
from jobcast.revocation import revoke
from jobcast.settings import Settings
from tests import jobs
from tests.conftest import Valkey
from tests.support import TIMEOUT, Server, Worker, eventually, free_port, new_id, running, wait_for
from tests.support.owner import Owner

Token = Callable[..., str]


def states(found: Any) -> dict[str, str]:
    return {job.job_id: job.status for job in found}


async def has_states(feed: Feed, expected: dict[str, str]) -> None:
    await eventually(lambda: states(feed.jobs) == expected, f"list {expected}")


async def stored(client: JobClient, expected: dict[str, str]) -> None:
    """Wait until the feed has these jobs: a publisher writes feeds after the events."""
    async with client.feed() as feed:
        await has_states(feed, expected)


async def test_feed_shows_the_jobs_of_a_worker(
    server: Server, worker: Worker, send: Callable[..., str], token: Token
) -> None:
    sub = new_id("owner")
    async with JobClient(server.url, token(sub)) as client, client.feed() as feed:
        assert feed.jobs == ()
        job_id = await asyncio.to_thread(send, worker, jobs.count, 3, owner=sub)
        seen: list[str] = []
        async with asyncio.timeout(TIMEOUT):
            async for change in feed:
                assert isinstance(change, JobSummary)
                assert (change.job_id, change.owner) == (job_id, sub)
                seen.append(change.status)
                if change.has_ended:
                    break
        assert seen[-1] == "complete"
        [job] = await client.jobs()
        assert (job.task, job.queue) == (jobs.count.name, worker.name)
        assert isinstance(job.ended_at, datetime)


async def test_jobs_match_the_filter_and_are_the_newest(
    server: Server, owner: Owner, token: Token
) -> None:
    old = owner.start(age=7200, task="shop.export", tags=("a",))
    failed = owner.start(age=60, task="shop.export", tags=("a", "b"))
    running_job = owner.start(age=30, task="shop.mail", title="Mail")
    owner.fail(failed)
    async with JobClient(server.url, token(owner.name)) as client:
        await stored(client, {old: "started", failed: "error", running_job: "started"})

        async def ids(**wanted: Any) -> list[str]:
            return [job.job_id for job in await client.jobs(**wanted)]

        assert await ids() == [running_job, failed, old]
        assert await ids(limit=2) == [running_job, failed]
        assert await ids(status="failed") == [failed]
        assert await ids(status=["running", "complete"]) == [running_job, old]
        assert await ids(tag="b") == [failed]
        assert await ids(task="shop.mail") == [running_job]
        assert await ids(owner=owner.name, since=datetime.now(UTC) - timedelta(hours=1)) == [
            running_job, failed,
        ]  # fmt: skip
        assert await ids(feed=f"owner:{owner.name}") == [running_job, failed, old]
    with SyncJobClient(server.url, token(owner.name)) as sync:
        found = sync.jobs(status=["running", "failed"], limit=2)
        assert [job.job_id for job in found] == [running_job, failed]
        assert (found[0].title, found[1].title) == ("Mail", UNSET)
        assert sync.jobs(tag="b", since=datetime.now(UTC) - timedelta(hours=1)) == found[1:]


async def test_job_that_no_longer_matches_leaves_the_list(
    server: Server, owner: Owner, token: Token
) -> None:
    first, second = owner.start(), owner.start()
    async with (
        JobClient(server.url, token(owner.name)) as client,
        client.feed(status="running") as feed,
        client.feed() as everything,
    ):
        await has_states(feed, {first: "started", second: "started"})
        await has_states(everything, {first: "started", second: "started"})
        owner.complete(first)
        async with asyncio.timeout(TIMEOUT):
            while not isinstance(change := await anext(feed), FeedGone):
                pass
        assert change.job_id == first
        await has_states(everything, {first: "complete", second: "started"})
        assert (states(feed.jobs), feed.total) == ({second: "started"}, 1)


async def test_older_jobs_take_the_places_of_those_that_have_left(
    server: Server, owner: Owner, token: Token
) -> None:
    ids = [owner.start(age=100 - number) for number in range(6)]
    async with JobClient(server.url, token(owner.name)) as client:
        await stored(client, dict.fromkeys(ids, "started"))
        async with client.feed(status="running", limit=2) as feed:
            assert (feed.total, feed.has_more) == (6, True)
            for job_id in reversed(ids[2:]):
                owner.complete(job_id)
            await has_states(feed, dict.fromkeys(ids[:2], "started"))


async def test_older_jobs_are_loaded_on_request(server: Server, owner: Owner, token: Token) -> None:
    ids = [owner.start(age=number) for number in range(7)]
    async with JobClient(server.url, token(owner.name)) as client:
        await stored(client, dict.fromkeys(ids, "started"))
        async with client.feed(limit=3) as feed, client.feed(status="running", limit=3) as other:
            async with asyncio.timeout(TIMEOUT):
                await asyncio.gather(feed.load_more(), feed.load_more())
                assert ([job.job_id for job in feed.jobs], feed.has_more) == (ids[:6], True)
                assert {(await anext(feed)).job_id for _ in range(3)} == set(ids[3:6])
                await feed.load_more()
                await feed.load_more()  # there are none
                assert ([job.job_id for job in feed.jobs], feed.has_more) == (ids, False)
                await other.load_more()
                assert [job.job_id for job in other.jobs] == ids[:6]
            newest = owner.start()
            await has_states(feed, dict.fromkeys([newest, *ids], "started"))
            assert feed.total == 8


async def test_longer_list_survives_a_lost_connection(
    server: Server, owner: Owner, token: Token
) -> None:
    ids = [owner.start(age=number) for number in range(5)]
    async with JobClient(server.url, token(owner.name)) as client:
        await stored(client, dict.fromkeys(ids, "started"))
        async with client.feed(limit=2) as feed:
            async with asyncio.timeout(TIMEOUT):
                await feed.load_more()
                client._connection.reconnect()
                owner.complete(ids[3])
                await has_states(feed, {**dict.fromkeys(ids[:3], "started"), ids[3]: "complete"})


async def test_feed_survives_a_server_that_was_killed(
    valkey: Valkey, owner: Owner, token: Token, tmp_path: Path
) -> None:
    first, second = owner.start(), owner.start()
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        async with (
            JobClient(server.url, token(owner.name)) as client,
            client.feed(status="running") as feed,
        ):
            await has_states(feed, {first: "started", second: "started"})
            server.kill()
            owner.complete(first)
            third = owner.start()
            server.start()
            changed: set[str] = set()
            async with asyncio.timeout(TIMEOUT):
                while not changed >= {first, third}:
                    changed.add((await anext(feed)).job_id)
            await has_states(feed, {second: "started", third: "started"})


async def test_feed_of_another_owner_is_refused(server: Server, owner: Owner, token: Token) -> None:
    owner.start()
    async with JobClient(server.url, token()) as client:
        for name in (f"owner:{owner.name}", "all", "tag:x"):
            with pytest.raises(FeedRefused) as refused:
                await client.jobs(name)
            assert (refused.value.feed, refused.value.code) == (name, "feed_not_allowed")
    with SyncJobClient(server.url, token()) as sync:
        with pytest.raises(FeedRefused) as refused:
            sync.jobs("all")
        assert (refused.value.feed, refused.value.code) == ("all", "feed_not_allowed")
        with pytest.raises(FeedRefused), sync.feed("tag:x"):
            pass


async def test_revoked_token_ends_the_feed(
    server: Server, valkey: Valkey, owner: Owner, token: Token
) -> None:
    subject = token(owner.name, jti=owner.name)
    async with JobClient(server.url, subject) as client, client.feed() as feed:
        revoke(jti=owner.name, settings=Settings(url=valkey.url))
        with pytest.raises(ConnectionRefused) as refused:
            async with asyncio.timeout(TIMEOUT):
                await anext(feed)
        assert refused.value.code == "token_revoked"


# --- without an event loop ----------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


class Reading:
    """An iteration over a feed in a thread, until a job leaves or an error ends it."""

    def __init__(self, pool: ThreadPoolExecutor, client: SyncJobClient, **wanted: Any) -> None:
        self.states: dict[str, str] = {}
        self.is_open = threading.Event()
        self.call = pool.submit(self._read, client, wanted)

    def _read(self, client: SyncJobClient, wanted: dict[str, Any]) -> None:
        with client.feed(**wanted) as feed:
            self.states = states(feed.jobs)
            self.is_open.set()
            for _ in feed:
                self.states = states(feed.jobs)

    def wait(self, expected: dict[str, str]) -> None:
        def has_arrived() -> bool:
            if self.call.done():
                self.call.result()
            return self.is_open.is_set() and self.states == expected

        wait_for(has_arrived, f"list {expected}")


def test_sync_feed_survives_a_restarted_server(
    valkey: Valkey, owner: Owner, token: Token, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    first, second = owner.start(), owner.start()
    port = free_port()
    with running(Server(tmp_path / "log", valkey.url, port=port)) as server:
        server.ready()
        jti = new_id()
        with SyncJobClient(server.url, token(owner.name, jti=jti)) as client:
            reading = Reading(pool, client, status="running")
            reading.wait({first: "started", second: "started"})
            owner.complete(first)
            reading.wait({second: "started"})
            server.kill()
            third = owner.start()
            server.start()
            reading.wait({second: "started", third: "started"})
            revoke(jti=jti, settings=Settings(url=valkey.url))
            with pytest.raises(ConnectionRefused) as refused:
                reading.call.result(TIMEOUT)
            assert refused.value.code == "token_revoked"


def test_sync_feed_refills_a_list_that_has_shrunk(
    server: Server, owner: Owner, token: Token
) -> None:
    ids = [owner.start(age=100 - number) for number in range(5)]
    with SyncJobClient(server.url, token(owner.name)) as client:
        wait_for(lambda: len(client.jobs()) == len(ids), "jobs in the feed")
        with client.feed(status="running", limit=2) as feed:
            assert ([job.job_id for job in feed.jobs], feed.has_more) == (ids[:2:-1], True)
            for job_id in ids[1:]:
                owner.complete(job_id)
            for _ in feed:
                if states(feed.jobs) == {ids[0]: "started"}:
                    break


def test_sync_feed_loads_older_jobs_on_request(server: Server, owner: Owner, token: Token) -> None:
    ids = [owner.start(age=number) for number in range(5)]
    with SyncJobClient(server.url, token(owner.name)) as client:
        wait_for(lambda: len(client.jobs()) == len(ids), "jobs in the feed")
        with client.feed(limit=2) as feed:
            feed.load_more()
            assert ([job.job_id for job in feed.jobs], feed.has_more) == (ids[:4], True)
            assert [next(feed).job_id for _ in range(2)] == ids[2:4]
            feed.load_more()
            feed.load_more()  # there are none
            assert ([job.job_id for job in feed.jobs], feed.has_more) == (ids, False)
            assert next(feed).job_id == ids[4]
            newest = owner.start()
            assert next(feed).job_id == newest
        with client.feed(limit=2) as feed:
            pass
        feed.load_more()  # without effect on a closed feed
        assert len(feed.jobs) == 2


def test_sync_jobs_reads_pages_of_a_long_list(
    server: Server, owner: Owner, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [owner.start(age=100 - number) for number in range(7)][::-1]
    monkeypatch.setattr("jobcast.client.sync_feed.MAX_HTTP_PAGE", 3)
    with SyncJobClient(server.url, token(owner.name)) as client:
        wait_for(lambda: len(client.jobs()) == len(ids), "jobs in the feed")
        assert [job.job_id for job in client.jobs()] == ids
        assert [job.job_id for job in client.jobs(limit=4)] == ids[:4]


def test_sync_client_reports_a_server_that_cannot_be_reached(token: Token) -> None:
    with SyncJobClient(f"http://127.0.0.1:{free_port()}", token()) as client:
        for call in (client.jobs, client.feed().__enter__):
            with pytest.raises(ConnectionRefused) as refused:
                call()
            assert refused.value.code == "unreachable"
