"""Tasks that are cancelled at any moment end and leave nothing behind."""

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
async def test_cancelled_client_ends(server: Server, token: Callable[..., str], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(15):
        task = asyncio.create_task(follow(server.url, token(jobs=["*"]), new_id()))
        # A random moment between before the connection and after the join.
        for _ in range(rng.randrange(60)):
            await asyncio.sleep(0.0005 if rng.random() < 0.5 else 0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=20)
        assert done, "the task did not end after it was cancelled"
        assert task.cancelled()


async def test_cancelled_lease_monitor_ends(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py may swallow a cancellation: about one in a hundred tasks kept running."""
    monkeypatch.setattr(aio, "CANCEL_AGAIN", 0.1)
    manager = open_manager(valkey.url)
    assert isinstance(manager.source, SupportsLeaseMonitoring)
    try:
        for _ in range(300):
            monitor = asyncio.create_task(
                LeaseMonitor(manager.source, LeaseTimeouts(lease=0.02)).run()
            )
            # The monitor scans continuously, so this cancels it at a random point.
            await asyncio.sleep(random.uniform(0, 0.02))
            await asyncio.wait_for(cancel_and_wait(monitor), 20)
            assert monitor.done()
    finally:
        await manager.aclose()
