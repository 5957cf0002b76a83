"""Helpers for asyncio: backoff, background tasks, cancellation, several loops in a row.

Before Python 3.12 ``asyncio.wait_for`` loses a cancellation that comes in one moment with what it
waits for. redis-py writes each command in it, and python-socketio waits for answers in it.

Clients, tasks and locks belong to the loop that they were made or first used in. An object that
outlives its loop, as with test clients, makes them anew for the next one, and awaits nothing of the
loop that is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

CANCEL_AGAIN: Final = 2.0  # seconds after which a task that still runs is cancelled again
MOST_DOUBLINGS: Final = 10  # of a delay

T = TypeVar("T")


class Backoff:
    """Delays between tries, with full jitter: clients of one server do not return at once.

    Args:
        first: seconds before the second try, at most.
        longest: seconds between two tries, at most.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self.failures = 0

    @property
    def ceiling(self) -> float:
        """The longest that the next delay may be, in seconds."""
        return min(self._longest, self._first * 2.0 ** min(self.failures, MOST_DOUBLINGS))

    def delay(self) -> float:
        """Return the seconds to wait before the next try."""
        return random.uniform(self._first / 2, self.ceiling)

    def failed(self) -> None:
        """Double the ceiling."""
        self.failures += 1

    def reset(self) -> None:
        """Begin again with the first delay: a try succeeded."""
        self.failures = 0


class BackgroundTasks:
    """Tasks that run beside their owner, which keeps them from being collected.

    Args:
        on_error: is called with the exception that a task ends with.
    """

    def __init__(self, on_error: Callable[[BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()
        self._on_error = on_error

    def spawn(
        self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None
    ) -> asyncio.Task[T]:
        """Run a coroutine in the running loop."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def wait(self) -> None:
        """Wait until the tasks have ended, however they do."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """Cancel the tasks, and wait until they have ended."""
        await cancel_and_wait(*self._tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._on_error is None or task.cancelled():
            return
        problem = task.exception()
        if problem is not None:
            self._on_error(problem)


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended, however they do.

    A task that lost its cancellation, and would run for ever, is cancelled again.

    >>> await cancel_and_wait(reader, writer)
    """
    remaining = set(tasks)
    while remaining:
        for task in remaining:
            task.cancel()
        _, remaining = await asyncio.wait(remaining, timeout=CANCEL_AGAIN)
    await asyncio.gather(*tasks, return_exceptions=True)  # nobody else asks how they ended


def raise_lost_cancellation() -> None:
    """Raise the cancellation of the current task, where it was lost."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


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
