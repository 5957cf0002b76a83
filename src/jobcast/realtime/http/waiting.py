"""A request that waits for the end of a job."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from jobcast.events import TERMINAL
from jobcast.realtime.connection.frames import FrameBatch
from jobcast.realtime.http.connection import HttpConnection


class EndWait(HttpConnection):
    """A follower of one job that only notices the end of the job."""

    __slots__ = ()

    @property
    def closed(self) -> bool:
        return self.ended

    @property
    def waiting(self) -> int:
        return 0

    async def wait(self, seconds: float) -> None:
        """Wait until the job ends, the connection has to end, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def drained(self) -> None:
        """Return at once: nothing is queued."""

    async def left(self, job_id: str) -> None:
        del job_id
        self._changed.set()

    def abort(self) -> None:
        self._changed.set()

    def _send(self, batch: FrameBatch) -> None:
        if any(message.seq and message.kind == TERMINAL for message in batch.messages):
            self._changed.set()

    def _send_history(self, batch: FrameBatch) -> None:
        self._send(batch)
