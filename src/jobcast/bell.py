"""A reentrant wake-up flag for threads, signal handlers and finalizers."""

from __future__ import annotations

import threading


class Bell:
    """A flag that wakes one thread from any other thread.

    ``threading.Event.set`` takes a lock. A signal handler or a finalizer that interrupts it in the
    same thread and sets the same event deadlocks. A bell is a single lock that C code releases.
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
        """Wait until the bell is set, then clear it. Return whether it was set in time."""
        return self._lock.acquire(timeout=-1 if timeout is None else timeout)
