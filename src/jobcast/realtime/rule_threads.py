"""Threads for authorization rules that are plain functions.

A rule may never return. ``concurrent.futures`` joins its threads when the interpreter exits, so
that such a rule would keep the process from ending: these threads are daemons.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, Full, Queue
from typing import Any, Final

THREADS: Final = 32  # calls that run at the same time
MAX_WAITING: Final = 10_000  # calls that wait for a thread


class NoThread(Exception):
    """Too many calls wait for a thread."""


class _Call:
    """A function to call, and the future that gets its result."""

    __slots__ = ("_args", "_function", "future")

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self.future: Future[Any] = Future()

    def run(self) -> None:
        """Call the function, unless its caller has given up meanwhile."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._function(*self._args))
        except BaseException as exc:
            # Also SystemExit: the caller decides, and the thread goes on.
            self.future.set_exception(exc)


class RuleThreads:
    """Calls functions in up to ``THREADS`` daemon threads, which start when they are needed."""

    def __init__(self) -> None:
        self._waiting: Queue[_Call | None] = Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._calls = 0  # that wait or run
        self._started = 0  # threads

    def call(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Call a function in a thread. Cancel the returned future to give the call up.

        Raises:
            NoThread: too many calls wait already.
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
        """Cancel the calls that wait, and end each thread once its present call returns."""
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
            del call  # an idle thread keeps no subject alive
            with self._lock:
                self._calls -= 1
