"""One connection for subscriptions to one Redis or Valkey server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from jobcast.transports.redis.bulk_reader import reply_reader
from jobcast.transports.redis.servers import REDIS_ERRORS

SUBSCRIBE_BATCH: Final = 500  # channels per command
PING_INTERVAL: Final = 15.0  # seconds of silence before a PING, and until its answer is overdue

logger = logging.getLogger(__name__)


class Subscriber:
    """Subscribes to channels of a server, and reads its messages.

    Args:
        pool: creates the connection, whose reads have no timeout because a channel may be silent
            for hours. A PING detects a dead connection.
        sharded: whether each channel belongs to one server of a cluster.
    """

    on_answer: Callable[[list[Any]], None]  # called with each reply of the server

    def __init__(self, pool: redis.asyncio.ConnectionPool, *, sharded: bool) -> None:
        self._pool = pool
        self._connection: redis.asyncio.Connection = pool.make_connection()
        self._sharded = sharded
        self._has_received = False
        options = pool.connection_kwargs
        address = options.get("path") or f"{options.get('host')}:{options.get('port')}"
        self.name = str(address)

    async def connect(self) -> None:
        with _writing():
            await self._connection.connect()

    async def run(self) -> None:
        """Read until the connection ends.

        Raises:
            RedisError, OSError: the connection has ended.
        """
        keep_alive = asyncio.create_task(self._keep_alive())
        answers = reply_reader(self._connection)
        try:
            while True:
                for answer in await answers.read():
                    if isinstance(answer, list):
                        self.on_answer(answer)
                self._has_received = True
        finally:
            keep_alive.cancel()

    async def close(self) -> None:
        try:
            # With TLS, closing waits for the other end, for at most the connect timeout.
            await self._connection.disconnect()
        except REDIS_ERRORS as exc:
            logger.debug("could not close the connection to %s: %s", self.name, exc)
        await self._pool.aclose()

    async def drop(self) -> None:
        """Close the connection at once, without a wait that a cancellation could interrupt."""
        await self._connection.disconnect(nowait=True)

    async def subscribe(self, channels: Iterable[str]) -> None:
        remaining = iter(channels)
        while batch := list(islice(remaining, SUBSCRIBE_BATCH)):
            if self._sharded:
                # One command cannot have channels of several slots.
                await self._send(*(("SSUBSCRIBE", channel) for channel in batch))
            else:
                await self._send(("SUBSCRIBE", *batch))

    async def subscribe_everywhere(self, channel: str) -> None:
        """Subscribe to a channel that is not sharded."""
        await self._send(("SUBSCRIBE", channel))

    async def unsubscribe(self, channel: str) -> None:
        await self._send(("SUNSUBSCRIBE" if self._sharded else "UNSUBSCRIBE", channel))

    async def _send(self, *commands: tuple[str, ...]) -> None:
        if not self._connection.is_connected:
            raise RedisConnectionError(f"the connection to {self.name} is down")
        packed = self._connection.pack_commands(commands)
        with _writing():
            await self._connection.send_packed_command(packed, check_health=False)

    async def _keep_alive(self) -> None:
        """Drop the connection when the server does not answer a PING."""
        while await self._receives_within(PING_INTERVAL) or await self._answers_ping():
            pass
        logger.warning(
            "%s did not answer a PING within %d s: reconnecting", self.name, PING_INTERVAL
        )
        # The reader fails, and the supervisor reconnects.
        await self._connection.disconnect(nowait=True)

    async def _receives_within(self, seconds: float) -> bool:
        self._has_received = False
        await asyncio.sleep(seconds)
        return self._has_received

    async def _answers_ping(self) -> bool:
        try:
            await self._send(("PING",))
        except REDIS_ERRORS:
            return False
        return await self._receives_within(PING_INTERVAL)


async def close_all(subscribers: Sequence[Subscriber]) -> None:
    """Close all connections, even if this call is cancelled meanwhile."""
    try:
        for subscriber in subscribers:
            await subscriber.close()
    finally:
        for subscriber in subscribers:
            await subscriber.drop()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except RuntimeError as exc:
        # uvloop raises RuntimeError for a connection that is lost at this moment.
        raise RedisConnectionError(str(exc)) from exc
