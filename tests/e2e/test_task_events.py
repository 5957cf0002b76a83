"""Progress as task events of Celery, and the pages of Flower that show it."""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.events.state import State

from tests import jobs
from tests.conftest import Valkey
from tests.support import Process, Worker, answers, free_port, running, wait_for

Send = Callable[..., str]


@pytest.fixture
def monitored(valkey: Valkey, tmp_path: Path) -> Iterator[Worker]:
    """Run a worker that sends Celery's events, and progress among them."""
    arguments = ["--pool=prefork", "--concurrency=1", "--task-events"]
    env = {"JOBCAST_TASK_EVENTS": "true"}
    log_path = tmp_path / "worker.log"
    with running(Worker(log_path, valkey.url, valkey.url, *arguments, env=env)) as worker:
        yield worker.ready()


@contextmanager
def monitoring(valkey: Valkey) -> Iterator[State]:
    """Receive the events of all workers as monitors do."""
    state = State()
    with Celery(broker=valkey.url, set_as_current=False) as app, app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": state.event})
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "wakeup": False})
        thread.start()
        try:
            # Workers send heartbeats: the first one shows that the queue is bound.
            wait_for(lambda: state.event_count, "event of a worker")
            yield state
        finally:
            receiver.should_stop = True
            thread.join()


def test_progress_is_a_task_event(
    valkey: Valkey, monitored: Worker, send: Send, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with monitoring(valkey) as state:
        job_id = send(monitored, jobs.count, 10, str(gate))

        def task() -> Any:
            return state.tasks.get(job_id)

        wait_for(lambda: getattr(task(), "current", None) == 5, "progress")
        assert (task().state, task().percentage, task().message) == ("PROGRESS", 50, "counting")
        assert task().result == "50 %: counting (5 of 10)"
        gate.touch()
        wait_for(lambda: task().state == "SUCCESS", "end")
        assert task().result == "{'steps': 10}"


def test_no_progress_event_is_sent_by_default(valkey: Valkey, send: Send, tmp_path: Path) -> None:
    arguments = ["--pool=prefork", "--concurrency=1", "--task-events"]
    log_path = tmp_path / "worker.log"
    with running(Worker(log_path, valkey.url, valkey.url, *arguments)) as worker:
        worker.ready()
        with monitoring(valkey) as state:
            job_id = send(worker, jobs.count, 10)
            wait_for(lambda: getattr(state.tasks.get(job_id), "state", "") == "SUCCESS", "end")
            assert not hasattr(state.tasks[job_id], "percentage")


def read(url: str) -> str:
    with urllib.request.urlopen(url) as response:
        body: bytes = response.read()
        return body.decode()


def test_flower_shows_the_progress_as_the_result(
    valkey: Valkey, monitored: Worker, send: Send, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    flower = Process(
        [sys.executable, "-m", "celery", "-A", "tests.jobs", "flower", f"--port={port}",
         "--address=127.0.0.1"],
        tmp_path / "flower.log",
        {"CELERY_BROKER_URL": valkey.url, "FLOWER_UNAUTHENTICATED_API": "true"},
    )  # fmt: skip
    with running(flower):
        flower.expect(lambda: answers(f"{url}/healthcheck"), "ready Flower")
        # Flower has bound its queue when it shows an event.
        wait_for(lambda: monitored.name in read(f"{url}/workers?json=1"), "worker in Flower")
        job_id = send(monitored, jobs.count, 10, str(gate))

        def info() -> Any:
            try:
                return json.loads(read(f"{url}/api/task/info/{job_id}"))
            except urllib.error.HTTPError:
                return {"state": ""}

        wait_for(lambda: info().get("result") == "50 %: counting (5 of 10)", "progress in Flower")
        page = read(f"{url}/task/{job_id}")
        assert "PROGRESS</span>" in page
        assert "50 %: counting (5 of 10)" in page
        assert "percentage" not in page
        assert 'id="task-terminate"' not in page
        gate.touch()
        wait_for(lambda: info()["state"] == "SUCCESS", "end in Flower")
