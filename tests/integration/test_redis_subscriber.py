"""Subscriber connections to a real server."""

from __future__ import annotations

import asyncio

import redis.asyncio

from jobcast.transports.redis.subscriber import Subscriber, close_all
from tests.conftest import Valkey


class SlowToClose(Subscriber):
    """A subscriber whose close waits for the peer, as with TLS."""

    def __init__(self, pool: redis.asyncio.ConnectionPool) -> None:
        super().__init__(pool, sharded=False)
        self.closing = asyncio.Event()

    async def close(self) -> None:
        self.closing.set()
        await asyncio.Event().wait()


async def test_cancelled_close_still_closes_all_connections(valkey: Valkey) -> None:
    pools = [redis.asyncio.ConnectionPool.from_url(valkey.url) for _ in range(3)]
    subscribers = [SlowToClose(pool) for pool in pools]
    for subscriber in subscribers:
        await subscriber.connect()
    assert all(subscriber._connection.is_connected for subscriber in subscribers)
    closing = asyncio.create_task(close_all(subscribers))
    await subscribers[0].closing.wait()
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert not any(subscriber._connection.is_connected for subscriber in subscribers)
