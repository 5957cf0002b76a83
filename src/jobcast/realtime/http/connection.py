"""The part that all connections of the HTTP interface share."""

from __future__ import annotations

import asyncio

from jobcast.realtime.connection.budget import Budget
from jobcast.realtime.connections import Connection
from jobcast.tokens import Subject


class HttpConnection(Connection):
    """An HTTP request that lasts: it follows jobs until its response ends.

    A client cannot send anything more on it. It ends in the same way whether its client may come
    back or not: the next request is authenticated again.
    """

    __slots__ = ("_address", "_changed", "_is_releasing")

    def __init__(self, sid: str, subject: Subject, budget: Budget, address: str) -> None:
        super().__init__(sid, subject, budget)
        self._address = address
        self._changed = asyncio.Event()
        self._is_releasing = False

    @property
    def address(self) -> str:
        return self._address

    async def joined(self, job_id: str) -> None:
        """Do nothing: the relay's rooms are the only ones."""

    async def disconnect(self) -> None:
        await self.release()

    async def release(self) -> None:
        self._is_releasing = True
        self._changed.set()
