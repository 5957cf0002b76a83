"""Event loops that follow one another in a process, as a test client's do.

Clients, tasks and locks belong to the loop that they were made or first used in. An object that
outlives its loop makes them anew for the next one, and awaits nothing of the loop that is gone.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class LoopChange:
    """Notices that another event loop runs than before."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def happened(self) -> bool:
        """Return whether the running loop is another one than at the call before.

        The first loop is no change: what was made outside of any loop is for it.
        """
        former, self._loop = self._loop, asyncio.get_running_loop()
        return former is not None and former is not self._loop


class LoopLock:
    """An ``asyncio.Lock`` for each event loop that uses it."""

    def __init__(self) -> None:
        self._change = LoopChange()
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        if self._change.happened():
            self._lock = asyncio.Lock()
        await self._lock.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()
