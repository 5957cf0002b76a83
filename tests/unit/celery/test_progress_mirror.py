"""Progress is mirrored while a task runs, and not after its end."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from jobcast.celery import progress_mirror as module
from jobcast.celery.progress_mirror import Mirror
from jobcast.celery.result_backend import store_progress
from jobcast.events import JobProgress
from tests.support import TIMEOUT, wait_for

REQUEST = object()


class Backend:
    def __init__(self) -> None:
        self.stored: list[tuple[str, Any, str]] = []
        self.entered = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.broken = False

    def store_result(self, task_id: str, meta: Any, state: str, *, request: object) -> None:
        assert request is REQUEST  # some backends need the request
        self.entered.set()
        assert self.open.wait(TIMEOUT)
        if self.broken:
            raise OSError("it is gone")
        self.stored.append((task_id, meta["percentage"], state))


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    return Mirror(store_progress, "job %s: could not store its progress")


def progress(percentage: float, job_id: str = "a") -> JobProgress:
    return JobProgress(job_id=job_id, percentage=percentage)


def test_latest_progress_is_stored(mirror: Mirror) -> None:
    backend = Backend()
    mirror.enter("a", SimpleNamespace(backend=backend), REQUEST)
    for percentage in range(50):
        mirror.update(progress(percentage))
    wait_for(lambda: backend.stored[-1:] == [("a", 49, "PROGRESS")], "the latest")
    assert len(backend.stored) < 50


def test_leave_waits_for_a_write_and_nothing_is_stored_after_it(mirror: Mirror) -> None:
    backend = Backend()
    backend.open.clear()
    mirror.enter("a", SimpleNamespace(backend=backend), REQUEST)
    mirror.update(progress(1))
    assert backend.entered.wait(TIMEOUT)
    mirror.update(progress(2))
    leaving = threading.Thread(target=mirror.leave, args=("a",))
    leaving.start()
    assert leaving.is_alive()
    backend.open.set()
    leaving.join(TIMEOUT)
    mirror.update(progress(3))
    other = Backend()
    mirror.enter("b", SimpleNamespace(backend=other), REQUEST)
    mirror.update(progress(4, "b"))
    wait_for(lambda: other.stored, "another task's progress")
    assert ("a", 3, "PROGRESS") not in backend.stored


def test_failing_backend_is_logged_and_tried_again(
    mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Backend()
    backend.broken = True
    mirror.enter("a", SimpleNamespace(backend=backend), REQUEST)
    mirror.update(progress(1))
    wait_for(lambda: "could not store its progress" in caplog.text, "warning")
    backend.broken = False
    mirror.update(progress(2))
    wait_for(lambda: backend.stored == [("a", 2, "PROGRESS")], "the next progress")


def test_end_of_a_task_waits_for_a_write_until_the_timeout() -> None:
    backend = Backend()
    backend.open.clear()
    mirror = Mirror(store_progress, "%s", 0.01)
    mirror.enter("a", SimpleNamespace(backend=backend), REQUEST)
    mirror.update(progress(1))
    assert backend.entered.wait(TIMEOUT)
    mirror.leave("a")
    assert backend.stored == []
    backend.open.set()


def test_tasks_that_begin_at_the_same_time_share_one_thread(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two threads, the end of a task would not wait for the write of the other one."""
    created = []
    barrier = threading.Barrier(2)

    class SlowThread(threading.Thread):
        def __init__(self, **options: Any) -> None:
            created.append(self)
            super().__init__(**options)
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(0.2)  # the other task, if it gets here, too

    tasks = [
        threading.Thread(target=mirror.enter, args=(name, SimpleNamespace(), REQUEST))
        for name in "ab"
    ]
    monkeypatch.setattr("jobcast.celery.progress_mirror.threading.Thread", SlowThread)
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(TIMEOUT)
    assert len(created) == 1
