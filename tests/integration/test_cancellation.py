"""What is cancelled, at whatever moment, ends and leaves nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from jobcast import aio
from jobcast.aio import cancel_and_wait
from jobcast.client import JobClient
from jobcast.liveness.monitor import LeaseMonitor
from jobcast.transports import open_manager
from jobcast.transports.leases import LeaseTimeouts, SupportsLeaseMonitoring
from tests.conftest import Valkey
from tests.support import Server, new_id


async def follow(url: str, token: str, job_id: str) -> None:
    async with JobClient(url, token) as client, asyncio.TaskGroup() as group:
        group.create_task(client.result(job_id))


@pytest.mark.parametrize("seed", range(4))
async def test_a_cancelled_client_leaves_nothing(
    server: Server, token: Callable[..., str], seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(15):
        task = asyncio.create_task(follow(server.url, token(jobs=["*"]), new_id()))
        # Anywhere from before the connection to after the join.
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0.0005 if chance.random() < 0.5 else 0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=20)
        assert done, "it goes on after it was cancelled"
        assert task.cancelled()


async def test_who_looks_after_leases_ends_when_it_is_told(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py may lose a cancellation: of a hundred processes that were to end one stayed."""
    monkeypatch.setattr(aio, "CANCEL_AGAIN", 0.1)
    manager = open_manager(valkey.url)
    assert isinstance(manager.source, SupportsLeaseMonitoring)
    try:
        for _ in range(300):
            watch = asyncio.create_task(
                LeaseMonitor(manager.source, LeaseTimeouts(lease=0.02)).run()
            )
            # It looks again and again: this is in the middle of it, wherever that is.
            await asyncio.sleep(random.uniform(0, 0.02))
            await asyncio.wait_for(cancel_and_wait(watch), 20)
            assert watch.done()
    finally:
        await manager.aclose()
