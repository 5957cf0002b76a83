"""Helpers for asyncio: backoff, jitter, background tasks, cancellation, consecutive event loops.

Before Python 3.12, ``asyncio.wait_for`` loses a cancellation that arrives at the same moment as the
result of the awaitable. redis-py writes each command inside ``wait_for``, and python-socketio waits
for acknowledgements inside it.

Clients, tasks and locks belong to the loop that they were created or first used in. An object that
outlives its loop, as in test clients, recreates them for the next loop and awaits nothing that
belongs to the closed loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import SystemRandom
from typing import Any, Final, TypeVar

CANCEL_AGAIN: Final = 2.0  # seconds after which a task that still runs is cancelled again
MOST_DOUBLINGS: Final = 10  # of a delay; bounds the exponent, so that no power overflows
#: Has no state that forks would share. The functions of ``random`` change the state that the
#: application may have seeded, for results that it can repeat.
RANDOM: Final = SystemRandom()

T = TypeVar("T")


class Backoff:
    """Exponential delays with jitter, so that clients of one server do not all retry at once.

    Args:
        first: maximum delay before the first retry, in seconds.
        longest: maximum delay between two attempts, in seconds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self.failures = 0

    @property
    def ceiling(self) -> float:
        """The maximum of the next delay, in seconds."""
        return min(self._longest, self._first * 2.0 ** min(self.failures, MOST_DOUBLINGS))

    def delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        return RANDOM.uniform(self._first / 2, self.ceiling)

    def failed(self) -> None:
        """Record a failed attempt: double the ceiling."""
        self.failures += 1

    def reset(self) -> None:
        """Record a successful attempt: return to the first delay."""
        self.failures = 0


def jittered(seconds: float, least: float, most: float) -> float:
    """Return ``seconds`` times a random factor between ``least`` and ``most``.

    Processes that start together, or lose the same server, then do not act together.

    >>> await asyncio.sleep(jittered(30.0, 0.7, 1.0))
    """
    return seconds * RANDOM.uniform(least, most)


class BackgroundTasks:
    """A set of background tasks. It keeps references, so that no task is garbage-collected.

    Args:
        on_error: callback that receives the exception of a task that fails.
    """

    def __init__(self, on_error: Callable[[BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()
        self._on_error = on_error

    def spawn(
        self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None
    ) -> asyncio.Task[T]:
        """Start a coroutine as a task in the running loop and return the task."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def wait(self) -> None:
        """Wait until all tasks have finished. Ignore their exceptions."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have finished."""
        await cancel_and_wait(*self._tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._on_error is None or task.cancelled():
            return
        problem = task.exception()
        if problem is not None:
            self._on_error(problem)


async def first_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run coroutines until one of them ends, and cancel the others.

    Raises:
        Exception: the exception of the one that has ended.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        await cancel_and_wait(*tasks)


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have finished. Ignore their exceptions.

    A task that still runs after ``CANCEL_AGAIN`` seconds may have lost its cancellation and is
    cancelled again.

    >>> await cancel_and_wait(reader, writer)
    """
    remaining = set(tasks)
    while remaining:
        for task in remaining:
            task.cancel()
        _, remaining = await asyncio.wait(remaining, timeout=CANCEL_AGAIN)
    # Retrieve the exceptions: asyncio logs those that nothing retrieves.
    await asyncio.gather(*tasks, return_exceptions=True)


async def shielded(task: asyncio.Future[T]) -> T:
    """Wait for the result of a task that goes on if the caller is cancelled.

    Nothing logs an exception that the task then raises. From Python 3.14, ``asyncio.shield`` does.

    >>> answer = await shielded(tasks.spawn(request()))
    """
    task.add_done_callback(lambda _: task.cancelled() or task.exception())
    await asyncio.wait([task])
    return task.result()


def raise_lost_cancellation() -> None:
    """Raise ``CancelledError`` if the current task has a pending cancellation that was lost."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class LoopChange:
    """A detector for a change of the running event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def happened(self) -> bool:
        """Return whether the running loop differs from the one at the previous call.

        The first call returns False: objects created outside any loop belong to the first loop.
        """
        former, self._loop = self._loop, asyncio.get_running_loop()
        return former is not None and former is not self._loop
