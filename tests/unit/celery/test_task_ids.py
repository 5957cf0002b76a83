"""Task ids that are no strings, in the main process of a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import VERSION, Celery

from jobcast import ProgressTask
from jobcast.publishing import runtime
from tests.support import new_id
from tests.unit.celery.deliveries import receive, send


@pytest.fixture
def task_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return a function that returns a task whose results have a backend."""
    monkeypatch.setenv("JOBCAST_URL", f"memory://{new_id()}")
    runtime.close()

    def create(backend: str) -> Any:
        app = Celery("ids", broker=f"memory://{new_id()}", backend=backend, set_as_current=False)

        @app.task(base=ProgressTask, shared=False)
        def task() -> None: ...

        return task

    yield create
    runtime.close()


@pytest.mark.parametrize("task_id", [uuid4(), 7], ids=["UUID", "number"])
def test_result_has_the_key_of_the_text_of_its_id(
    task_id: Any, task_of: Callable[[str], Any]
) -> None:
    task = task_of("cache+memory://")
    request = receive(task, send(task, task_id=task_id))
    key = task.backend.get_key_for_task
    assert key(request.id) == key(str(task_id))
    assert request.request_dict["id"] == request.id  # what a process of the pool receives


@pytest.mark.parametrize(
    "backend",
    [
        "disabled://",
        pytest.param(
            "cache+memory://",
            marks=pytest.mark.skipif(VERSION < (5, 7), reason="Celery has no keys for UUIDs"),
        ),
    ],
)
def test_id_that_celery_can_store_stays(backend: str, task_of: Callable[[str], Any]) -> None:
    """The sender compares the id of a result with the one that it has sent."""
    task, task_id = task_of(backend), uuid4()
    request = receive(task, send(task, task_id=task_id))
    assert isinstance(request.id, UUID)
    assert request.id == request.request_dict["id"] == task_id
