"""Forks that wait for an operation of another thread.

A lock that another thread holds during a fork stays locked in the child for ever. Celery's result
backends have such locks, which all threads share: kombu's ``cached_property`` has one for each
property of a class, whatever the instance.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import Final

FORK_TIMEOUT: Final = 1.0  # seconds that a fork may wait


class ForkGuard:
    """A context manager for operations that a fork should not interrupt.

    The fork waits for a short time only: an operation that takes longer waits for the network, and
    holds none of the shared locks.

    >>> os.register_at_fork(
    ...     before=guard.before_fork, after_in_parent=guard.after_fork, after_in_child=guard.reset
    ... )
    >>> with guard:
    ...     app.backend.get_state("42")
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Replace the locks in a forked process, in which their owner may not exist."""
        # Reentrant, because an operation may fork.
        self._operation = threading.RLock()
        # Without it, the next operation would begin before the fork gets the first lock.
        self._gate = threading.RLock()

    def __enter__(self) -> None:
        with self._gate:
            self._operation.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._operation.release()

    def before_fork(self) -> None:
        """Wait for the operation of another thread, and keep the next one from beginning."""
        self._gate.acquire(timeout=FORK_TIMEOUT)
        self._operation.acquire(timeout=FORK_TIMEOUT)

    def after_fork(self) -> None:
        """Let the operations continue, in the process that has forked."""
        for lock in (self._operation, self._gate):
            with suppress(RuntimeError):  # another thread has kept it
                lock.release()
