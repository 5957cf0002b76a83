"""A client that is cancelled, at whatever moment, ends at once and leaves nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from jobcast.client import JobClient
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
