"""A thread for what a worker's main process has to say of jobs.

Celery calls from the loop that serves all children, and from signal handlers, which may have
interrupted anything: there nothing may be waited for, and no lock be taken.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

CLOSE_TIMEOUT: Final = 3.0  # seconds that the end of a process may wait

logger = logging.getLogger(__name__)

_Call = tuple[Callable[..., object], tuple[Any, ...], threading.Event]


class BackgroundCalls:
    """Calls functions one after the other, in a thread that is started when it is needed."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a process that was forked: the thread stayed behind in the parent."""
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[..., object], *args: Any) -> threading.Event:
        """Have a function called soon. Returns what is set when that has been done."""
        done = threading.Event()
        # SimpleQueue is the one queue whose put may interrupt itself.
        self._calls.put((function, args, done))
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="jobcast-background", daemon=True
            )
            self._thread.start()
        return done

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Wait until all that was asked for is done, for so many seconds at most."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._calls.put(None)
            thread.join(timeout)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, args, done = call
            try:
                function(*args)
            except Exception:
                logger.exception("what a job has come to could not be said")
            finally:
                done.set()


background = BackgroundCalls()


os.register_at_fork(after_in_child=background.forget)
