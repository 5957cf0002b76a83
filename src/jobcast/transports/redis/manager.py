"""The python-socketio manager of a server process, whose jobs' events come from a RedisSource."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import socketio

from jobcast.transports.base import Outgoing, Retention
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.redis.names import Names
from jobcast.transports.redis.source import RedisSource
from jobcast.transports.socketio_managers import AsyncJobEventManagerMixin


class RedisClientManager(AsyncJobEventManagerMixin, socketio.AsyncRedisManager):
    """A ``socketio.AsyncRedisManager`` with a :class:`RedisSource` for the jobs' events."""

    source: RedisSource

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        retention: Retention | None = None,
        prefix: str = DEFAULT_PREFIX,
        redis_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(url, channel=Names(prefix).bus)
        self.source = RedisSource(url, redis_options, retention, prefix)

    async def publish_event(self, outgoing: Outgoing) -> None:
        await self.source.publish([outgoing])

    async def _publish(self, data: dict[str, Any]) -> None:
        self._redis_connect()  # in the running loop
        await super()._publish(data)

    def _redis_connect(self) -> None:
        # All writes share one connection pool.
        self.redis = self.source.client
        self.connected = True

    async def _listen(self) -> AsyncIterator[bytes]:
        # python-socketio's own listener would use a second connection, and back off for a minute.
        while True:
            yield await self.source.bus.get()
