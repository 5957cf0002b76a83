"""What a Redis server sends on a connection for subscriptions, read in bulk.

redis-py reads and checks one answer at a time, which costs more than all else that is done with an
event. This is the one place that reaches past its interface; where that does not lead to the
stream, or hiredis is not installed, answers are read one by one.
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


class Answers(Protocol):
    async def read(self) -> list[Any]:
        """Wait for answers. Returns all that are there, in order.

        Raises:
            RedisError, OSError: the connection has ended, or the server has said something wrong.
        """


class SingleAnswers:
    """By redis-py."""

    def __init__(self, connection: redis.asyncio.Connection) -> None:
        self._connection = connection

    async def read(self) -> list[Any]:
        return [await self._connection.read_response(disconnect_on_error=False)]


class BulkAnswers:
    """From the stream of a connection of redis-py, which has been set up."""

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
                    self._problem = answer  # after what came before it
                    break
                answers.append(answer)
        return answers


def answers_of(connection: redis.asyncio.Connection) -> Answers:
    """The answers that come on a connection from now on."""
    stream = getattr(connection, "_reader", None)
    if not HIREDIS_AVAILABLE or not isinstance(stream, asyncio.StreamReader):
        return SingleAnswers(connection)
    return BulkAnswers(stream)
