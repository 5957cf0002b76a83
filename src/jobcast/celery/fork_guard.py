"""Forks that wait for an operation of another thread.

A lock that another thread holds during a fork stays locked in the child for ever. Celery's result
backends have such locks, which all threads share: kombu's ``cached_property`` has one for each
property of a class, whatever the instance.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from celery.backends.base import Backend

FORK_TIMEOUT: Final = 1.0  # seconds that forks may wait for one operation


@dataclass(eq=False)
class _Operation:
    thread: int = field(default_factory=threading.get_ident)
    is_awaited: bool = True  # until a fork has given up on it


class ForkGuard:
    """A guard of operations on result backends that a fork should not interrupt.

    A fork waits for them, once and for a short time: an operation that takes longer waits for the
    network. A child that is forked nevertheless replaces the locks that the operation may hold.

    >>> os.register_at_fork(
    ...     before=guard.before_fork,
    ...     after_in_parent=guard.after_fork,
    ...     after_in_child=guard.after_fork_in_child,
    ... )
    >>> with guard.operation():
    ...     app.backend.get_state("42")
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._operations: set[_Operation] = set()
        self._forking: set[int] = set()  # threads

    @contextmanager
    def operation(self) -> Iterator[None]:
        """Begin an operation when no fork is under way. The operation may fork, too."""
        operation = _Operation()
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._operations.add(operation)
        try:
            yield
        finally:
            with self._changed:
                self._operations.discard(operation)  # a child does not have it
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait for the operations of other threads, and keep the next ones from beginning.

        Python drops exceptions of this call, including those that Celery's handler of a third
        Ctrl-C raises in it.
        """
        with self._changed:
            self._forking.add(threading.get_ident())
            if not self._changed.wait_for(self._may_fork, FORK_TIMEOUT):
                # One such operation may outlast the replacement of all children of a pool.
                for operation in self._operations:
                    operation.is_awaited = False
                self._changed.notify_all()

    def after_fork(self) -> None:
        """Let the operations continue, in the process that has forked."""
        with self._changed:
            self._forking.discard(threading.get_ident())
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Forget the threads of the parent process, and replace the locks that they may hold."""
        thread = threading.get_ident()
        was_interrupted = any(operation.thread != thread for operation in self._operations)
        self._reset()
        if was_interrupted:
            replace_property_locks()

    def _may_fork(self) -> bool:
        thread = threading.get_ident()
        return not any(
            operation.is_awaited and operation.thread != thread for operation in self._operations
        )


def replace_property_locks() -> None:
    """Replace the locks of the cached properties of all result backends.

    kombu's ``cached_property`` holds its lock while it computes the value. That may need the
    network: a property of Celery's MongoDB backend creates an index. Properties without the
    undocumented attribute ``lock`` are left as they are.
    """
    backends: list[type] = [Backend]
    for backend in backends:  # the list grows
        backends.extend(backend.__subclasses__())
    for base in {base for backend in backends for base in backend.__mro__}:
        for value in vars(base).values():
            if isinstance(value, cached_property) and hasattr(value, "lock"):
                value.lock = threading.RLock()
