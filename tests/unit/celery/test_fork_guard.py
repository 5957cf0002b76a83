"""Forks while another thread uses a result backend."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from kombu.utils.objects import cached_property

from jobcast.celery import fork_guard as module
from jobcast.celery.fork_guard import ForkGuard
from tests.support import TIMEOUT, wait_for


class Backend:
    """A backend with a client, which its instances create under one lock, as those of Celery do."""

    def __init__(self, create: Callable[[], object]) -> None:
        self._create = create

    @cached_property  # type: ignore[untyped-decorator, unused-ignore]
    def client(self) -> object:
        return self._create()


def fork(child: Callable[[], bool]) -> bool:
    """Return what a function answers in a forked process."""
    pid = os.fork()
    if not pid:
        signal.alarm(int(TIMEOUT))  # ends a deadlocked child
        os._exit(0 if child() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def is_free(lock: Any) -> bool:
    """Return whether this thread can take a lock."""
    taken = lock.acquire(blocking=False)
    if taken:
        lock.release()
    return bool(taken)


def can_create() -> bool:
    """Return whether another instance can create its client, which takes the lock of the class."""
    return is_free(vars(Backend)["client"].lock) and Backend(object).client is not None


class Operations:
    """A thread that creates clients, one after the other."""

    def __init__(self, guard: ForkGuard) -> None:
        self.guard = guard
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.is_over = False
        self.count = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Operations:
        self._thread.start()
        assert self.begun.wait(TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.may_end.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()

    def _create(self) -> object:
        self.begun.set()
        assert self.may_end.wait(TIMEOUT)
        return object()

    def _run(self) -> None:
        while not self.is_over:
            with self.guard:
                assert Backend(self._create).client
            self.count += 1


@pytest.fixture
def guard() -> ForkGuard:
    return ForkGuard()


def test_a_fork_waits_for_an_operation_that_holds_a_shared_lock(
    guard: ForkGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORK_TIMEOUT", TIMEOUT)

    def end_when_the_fork_waits() -> None:
        wait_for(lambda: not is_free(guard._gate), "a fork")
        operations.may_end.set()

    with Operations(guard) as operations:
        assert not fork(can_create)  # the child of a fork without the guard would wait for ever
        ending = threading.Thread(target=end_when_the_fork_waits)
        ending.start()
        guard.before_fork()
        assert operations.may_end.is_set()
        assert fork(can_create)
        guard.after_fork()
        ending.join()


def test_operations_in_a_row_do_not_delay_a_fork(
    guard: ForkGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORK_TIMEOUT", TIMEOUT)
    with Operations(guard) as operations:
        operations.may_end.set()
        for _ in range(20):
            guard.before_fork()
            count = operations.count
            assert fork(can_create)
            assert operations.count <= count + 1  # one may have ended without being counted
            guard.after_fork()


def test_a_long_operation_does_not_hold_up_a_fork(
    guard: ForkGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORK_TIMEOUT", 0.01)
    with Operations(guard) as operations:
        guard.before_fork()
        assert not operations.may_end.is_set()
        guard.after_fork()
        operations.may_end.set()
    with guard:  # is usable after the timeout
        pass


def test_an_operation_may_fork(guard: ForkGuard) -> None:
    with guard:
        guard.before_fork()
        assert fork(can_create)
        guard.after_fork()
    with guard:
        pass


def test_a_child_may_use_the_guard_that_an_operation_held(guard: ForkGuard) -> None:
    def use() -> bool:
        guard.reset()
        with guard:
            return True

    with Operations(guard):
        assert fork(use)
