"""Calls of the blocking publishers, from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from jobcast.aio import LoopChange, shielded
from jobcast.errors import TransportUnavailable

P = ParamSpec("P")
T = TypeVar("T")


class ThreadCalls:
    """Blocking calls in threads, one at a time, of an object that only one thread may use.

    A thread cannot be cancelled: the call of a caller that is cancelled goes on, and the next call
    waits for its end. An event loop that replaces the former one waits for none of its calls.

    >>> calls = ThreadCalls()
    >>> await calls.run(publisher.publish, batch)
    >>> await calls.close(publisher.close)
    """

    def __init__(self) -> None:
        self._change = LoopChange()
        self._turn = asyncio.Lock()
        self._closed = 0  # how often

    async def run(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Call a function in a thread after the earlier calls, and return its result.

        Raises:
            TransportUnavailable: the calls were closed before the turn of this one.
        """
        return await (await self.begin(function, *args, **options))

    async def begin(
        self, function: Callable[P, T], *args: P.args, **options: P.kwargs
    ) -> Awaitable[T]:
        """Wait for the earlier calls, and start this one. Its result has to be awaited.

        Raises:
            TransportUnavailable: the calls were closed before the turn of this one.
        """
        if self._change.happened():
            self._turn = asyncio.Lock()
        turn, closed = self._turn, self._closed
        await turn.acquire()
        if closed != self._closed:
            turn.release()
            raise TransportUnavailable("the connection is closed")
        try:
            # Not a task: asyncio.run() cancels all tasks at its end, and the thread would go on.
            call = asyncio.get_running_loop().run_in_executor(
                None, partial(copy_context().run, function, *args, **options)
            )
        except BaseException:
            turn.release()
            raise
        call.add_done_callback(lambda _: turn.release())
        return shielded(call)

    async def close(self, function: Callable[[], T]) -> T:
        """Call a function after the current call. Calls that wait for their turn fail."""
        self._closed += 1
        return await self.run(function)
