"""Threads for authorization rules that are plain functions.

The threads are daemons, because a rule may never return. ``concurrent.futures`` joins its threads
at interpreter exit, so such a rule would keep the process from exiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, Full, Queue
from typing import Any, Final

THREADS: Final = 32  # maximum number of concurrent calls
MAX_WAITING: Final = 10_000  # maximum number of calls that wait for a thread


class NoThread(Exception):
    """Too many calls wait for a thread."""


class _Call:
    """A function to call, and the future for its result."""

    __slots__ = ("_args", "_function", "future")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self.future: Future[Any] = Future()

    def run(self) -> None:
        """Call the function, unless its caller has cancelled the future."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._function(*self._args))
        except BaseException as exc:
            # This includes SystemExit: the caller handles it, and the thread stays alive.
            self.future.set_exception(exc)


class RuleThreads:
    """A pool of up to ``THREADS`` daemon threads, which start on demand."""

    def __init__(self) -> None:
        self._waiting: Queue[_Call | None] = Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._calls = 0  # number of calls that wait or run
        self._started = 0  # number of threads

    def call(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Call a function in a thread. Cancel the returned future to abandon the call.

        Raises:
            NoThread: too many calls wait for a thread.
        """
        call = _Call(function, args)
        try:
            self._waiting.put_nowait(call)
        except Full:
            raise NoThread(f"{MAX_WAITING} calls wait for a thread") from None
        with self._lock:
            self._calls += 1
            needs_thread = self._started < min(self._calls, THREADS)
            self._started += needs_thread
        if needs_thread:
            threading.Thread(target=self._run, name="jobcast-authorize", daemon=True).start()
        return asyncio.wrap_future(call.future)

    def close(self) -> None:
        """Cancel the waiting calls, and end each thread when its current call returns."""
        try:
            while (call := self._waiting.get_nowait()) is not None:
                call.future.cancel()
        except Empty:
            pass
        for _ in range(self._started):
            self._waiting.put(None)

    def _run(self) -> None:
        while (call := self._waiting.get()) is not None:
            call.run()
            del call  # an idle thread must not keep a subject alive
            with self._lock:
                self._calls -= 1
