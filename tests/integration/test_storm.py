"""All clients reconnect at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from jobcast.errors import TransportUnavailable
from jobcast.testing import log, new_job_id
from jobcast.transports import Outgoing, open_manager, open_publisher
from tests.conftest import Valkey
from tests.support.redis_family import RedisProcess, redis_server, started

JOBS = 300


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisProcess]:
    """Start a server without other clients."""
    with started(RedisProcess(tmp_path, binary=redis_server())) as server:
        yield server


async def test_many_histories_are_read_over_one_connection(own_server: RedisProcess) -> None:
    url = own_server.url
    publisher = open_publisher(url)
    ids = [new_job_id() for _ in range(JOBS)]
    await asyncio.to_thread(publisher.publish, [Outgoing.of(log(job_id, job_id)) for job_id in ids])
    manager = open_manager(url)
    with Redis.from_url(url) as client:

        def connections_received() -> int:
            return int(client.info("stats")["total_connections_received"])

        before = connections_received()
        snapshots = await asyncio.gather(*map(manager.source.snapshot, ids))
        assert connections_received() - before == 1
    assert [len(snapshot.events) for snapshot in snapshots] == [1] * JOBS
    assert all(
        job_id in snapshot.events[0].packet for job_id, snapshot in zip(ids, snapshots, strict=True)
    )
    publisher.close()
    await manager.aclose()


async def test_reads_of_a_stopped_server_fail_at_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with started(RedisProcess(tmp_path_factory.mktemp("gone"), binary=redis_server())) as server:
        manager = open_manager(server.url)
        await manager.source.snapshot("any")
    ids = [new_job_id() for _ in range(JOBS)]
    answers = await asyncio.gather(*map(manager.source.snapshot, ids), return_exceptions=True)
    assert {type(answer) for answer in answers} == {TransportUnavailable}
    await manager.aclose()


async def test_cancelled_read_does_not_cancel_the_others(valkey: Valkey) -> None:
    manager = open_manager(valkey.url)
    ids = [new_job_id() for _ in range(10)]
    reads = [asyncio.create_task(manager.source.snapshot(job_id)) for job_id in ids]
    await asyncio.sleep(0)
    reads[3].cancel()
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert isinstance(answers[3], asyncio.CancelledError)
    assert [snapshot.seq for snapshot in answers if not isinstance(snapshot, BaseException)] == [
        0
    ] * 9
    await manager.aclose()
