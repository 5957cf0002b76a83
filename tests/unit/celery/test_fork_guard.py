"""Forks while another thread uses a result backend."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from celery.backends.base import Backend as CeleryBackend
from kombu.utils.objects import cached_property

from jobcast.celery import fork_guard as module
from jobcast.celery.fork_guard import ForkGuard
from tests.support import TIMEOUT, wait_for


class Backend(CeleryBackend):  # type: ignore[misc, unused-ignore]
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
        status = 1
        try:
            status = 0 if child() else 1
        finally:
            os._exit(status)
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

    @contextmanager
    def ending_at_a_fork(self) -> Iterator[None]:
        """Let the operations end when a fork waits for them."""

        def end() -> None:
            wait_for(lambda: self.guard._forking, "a fork")
            self.may_end.set()

        ending = threading.Thread(target=end)
        ending.start()
        yield
        ending.join()

    def _create(self) -> object:
        self.begun.set()
        assert self.may_end.wait(TIMEOUT)
        return object()

    def _run(self) -> None:
        while not self.is_over:
            with self.guard.operation():
                assert Backend(self._create).client
            self.count += 1


@pytest.fixture
def guard() -> ForkGuard:
    return ForkGuard()


def test_a_fork_waits_for_an_operation_that_holds_a_shared_lock(
    guard: ForkGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORK_TIMEOUT", TIMEOUT)

    with Operations(guard) as operations:
        assert not fork(can_create)  # the child of a fork without the guard would wait for ever
        with operations.ending_at_a_fork():
            guard.before_fork()
            assert operations.may_end.is_set()
            assert fork(can_create)
            guard.after_fork()


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
    with guard.operation():  # is usable after the timeout
        pass


def test_all_forks_together_wait_once_for_a_long_operation(
    guard: ForkGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork_again() -> None:
        guard.before_fork()
        guard.after_fork()

    monkeypatch.setattr(module, "FORK_TIMEOUT", 0.01)
    with Operations(guard) as operations:
        fork_again()
        monkeypatch.setattr(module, "FORK_TIMEOUT", None)  # without limit
        forks = [threading.Thread(target=fork_again) for _ in range(3)]
        for each in forks:
            each.start()
        for each in forks:
            each.join(TIMEOUT)
        assert not any(each.is_alive() for each in forks)
        assert not operations.may_end.is_set()


def test_a_fork_waits_for_the_operation_after_a_long_one(
    guard: ForkGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORK_TIMEOUT", 0.01)
    with Operations(guard):
        guard.before_fork()
        guard.after_fork()
    monkeypatch.setattr(module, "FORK_TIMEOUT", TIMEOUT)
    with Operations(guard) as operations:
        with operations.ending_at_a_fork():
            guard.before_fork()
            assert operations.may_end.is_set()
            guard.after_fork()


def test_a_fork_that_interrupts_an_operation_frees_the_shared_locks_in_its_child(
    guard: ForkGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create() -> bool:
        guard.after_fork_in_child()
        return can_create()

    monkeypatch.setattr(module, "FORK_TIMEOUT", 0.01)
    with Operations(guard) as operations:
        guard.before_fork()
        assert fork(create)
        assert not fork(can_create)
        assert not operations.may_end.is_set()
        guard.after_fork()


def test_an_operation_may_fork_and_end_in_both_processes(guard: ForkGuard) -> None:
    def end_and_repeat() -> bool:
        guard.after_fork_in_child()
        operation.close()
        with guard.operation():
            return True

    with ExitStack() as operation:
        operation.enter_context(guard.operation())
        guard.before_fork()
        assert all(each.is_awaited for each in guard._operations)  # none was given up
        assert fork(end_and_repeat)
        guard.after_fork()
    with guard.operation():
        pass


def test_a_child_may_use_the_guard_that_an_operation_held(guard: ForkGuard) -> None:
    def use() -> bool:
        guard.after_fork_in_child()
        with guard.operation():
            return True

    with Operations(guard):
        assert fork(use)
