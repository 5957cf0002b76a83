"""A thread in which a worker's main process publishes the outcomes of jobs.

Celery calls jobcast from the loop that serves all children, and from signal handlers, which may
interrupt any code. These calls must not wait, and must not take locks.
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
    """A thread that calls functions one after the other. It starts with the first call."""

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Reset the state in a forked process, in which the thread does not exist."""
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[..., object], *args: Any) -> threading.Event:
        """Schedule a call. Return an event that is set when the call has ended."""
        done = threading.Event()
        # SimpleQueue is the only queue with a reentrant put().
        self._calls.put((function, args, done))
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="jobcast-background", daemon=True
            )
            self._thread.start()
        return done

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Wait until all scheduled calls have ended, for at most ``timeout`` seconds."""
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
                logger.exception(
                    "could not report the state of a job from the worker's main process; the job"
                    " keeps its last state, or ends as lost after JOBCAST_LOST_AFTER if it was"
                    " started"
                )
            finally:
                done.set()


background = BackgroundCalls()


os.register_at_fork(after_in_child=background.reset_after_fork)
