"""A lock for state that signal handlers and finalizers may access while the lock is held."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Guard:
    """A lock that knows whether the current thread holds it.

    Any allocation may collect garbage, and a signal may arrive at any time. Both run foreign code
    in the thread that holds the lock. Threads of tasks therefore use :meth:`run_if_free`, which
    never blocks. Only jobcast's own threads wait for the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner = 0

    @property
    def held_here(self) -> bool:
        return self._owner == threading.get_ident()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._owner = 0
        self._lock.release()

    def run_if_free(self, function: Callable[[], None]) -> bool:
        """Call a function under the lock. Return False at once if the lock is held."""
        here = threading.get_ident()
        if self._owner == here:
            return False
        try:
            if not self._lock.acquire(blocking=False):
                return False
            self._owner = here
            function()
            return True
        finally:
            if self._owner == here:
                self._owner = 0
            # A signal handler may raise after acquire() and before any variable is set. Only the
            # lock itself knows whether this thread holds it.
            try:  # noqa: SIM105 - a signal handler may raise in suppress()
                self._lock.release()
            except RuntimeError:
                pass  # this thread does not hold it
