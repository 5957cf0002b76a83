"""A wake-up call that may be given anywhere, also in the middle of giving one."""

from __future__ import annotations

import threading


class Bell:
    """Wakes one thread, from any other.

    ``threading.Event`` takes a lock to be set: a signal handler or a finalizer that sets it while
    its own thread is setting it waits forever. A bell is a single lock that the C code releases.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def is_set(self) -> bool:
        return not self._lock.locked()

    def set(self) -> None:
        if self._lock.locked():
            try:  # noqa: SIM105 - a signal handler may raise in suppress()
                self._lock.release()
            except RuntimeError:
                pass  # another thread has just set it

    def clear(self) -> None:
        self._lock.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the bell is set, and clear it. Returns whether it was set in time."""
        return self._lock.acquire(timeout=-1 if timeout is None else timeout)
