"""Reads the messages of a Redis subscription in bulk.

redis-py reads and checks one reply at a time, which costs more than the rest of an event's
processing. This module is the only one that reads redis-py's private stream. If the stream is not
available, or hiredis is not installed, it reads replies one by one.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError
from redis.utils import HIREDIS_AVAILABLE

if HIREDIS_AVAILABLE:
    import hiredis

READ_SIZE: Final = 256 * 1024  # bytes


class ReplyReader(Protocol):
    async def read(self) -> list[Any]:
        """Wait for replies, and return all that have arrived, in order.

        Raises:
            RedisError, OSError: the connection has ended, or the server has sent an error.
        """


class SingleReplyReader:
    """Reads replies with redis-py."""

    def __init__(self, connection: redis.asyncio.Connection) -> None:
        self._connection = connection

    async def read(self) -> list[Any]:
        return [await self._connection.read_response(disconnect_on_error=False)]


class BulkReplyReader:
    """Reads replies from the stream of an established redis-py connection."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._problem: ResponseError | None = None
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse, replyError=ResponseError, notEnoughData=self
        )

    async def read(self) -> list[Any]:
        if self._problem is not None:
            raise self._problem
        answers: list[Any] = []
        while not answers:
            data = await self._stream.read(READ_SIZE)
            if not data:
                raise RedisConnectionError("the server has closed the connection")
            self._parser.feed(data)
            while (answer := self._parser.gets()) is not self:
                if isinstance(answer, ResponseError):
                    if not answers:
                        raise answer
                    self._problem = answer  # raised by the next call, after the replies before it
                    break
                answers.append(answer)
        return answers


def reply_reader(connection: redis.asyncio.Connection) -> ReplyReader:
    """Return a reader for the replies that arrive on a connection from now on."""
    stream = getattr(connection, "_reader", None)
    if not HIREDIS_AVAILABLE or not isinstance(stream, asyncio.StreamReader):
        return SingleReplyReader(connection)
    return BulkReplyReader(stream)
