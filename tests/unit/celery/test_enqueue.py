"""The time for which the sender of a task waits for an unresponsive transport."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from jobcast import ProgressTask, open_job
from jobcast.errors import SettingsError
from jobcast.publishing import runtime
from jobcast.publishing.publisher import FLUSH_TIMEOUT, Publisher
from jobcast.settings import Settings


@pytest.fixture(autouse=True)
def _default_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBCAST_ENQUEUE_TIMEOUT")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        monkeypatch.setenv("JOBCAST_URL", f"redis://127.0.0.1:{server.getsockname()[1]}")
        runtime.close()
        yield
        close = Publisher.close
        monkeypatch.setattr(Publisher, "close", lambda self: close(self, 0.1))
        runtime.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list of the timeouts of all flushes."""
    flush = Publisher.flush
    timeouts: list[float] = []

    def record(self: Publisher, timeout: float = FLUSH_TIMEOUT) -> bool:
        timeouts.append(timeout)
        return flush(self, timeout)

    monkeypatch.setattr(Publisher, "flush", record)
    return timeouts


@pytest.fixture
def task() -> Any:
    app = Celery("enqueue", broker="memory://", set_as_current=False)

    @app.task(base=ProgressTask, bind=True, shared=False)
    def work(self: ProgressTask) -> None: ...

    return work


def test_sender_waits_a_quarter_of_a_second(task: Any, silent: None, waits: list[float]) -> None:
    task.delay()
    assert waits == [0.25]


def test_enqueue_timeout_sets_the_wait_of_a_sender(
    task: Any, silent: None, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBCAST_ENQUEUE_TIMEOUT", "0.01")
    runtime.close()
    task.delay()
    assert waits == [0.01]


def test_sender_waits_no_longer_if_the_broker_is_down(
    task: Any, silent: None, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OperationalError("the broker is down")

    monkeypatch.setattr("kombu.messaging.Producer.publish", fail)
    with pytest.raises(OperationalError):
        task.delay()
    assert waits == [0.25, 0.25]


async def test_sender_does_not_wait_in_an_event_loop(
    task: Any, silent: None, waits: list[float]
) -> None:
    task.delay()
    with open_job("a") as job:
        job.log("a line")
    assert waits == []
    # A sender in another thread waits.
    await asyncio.to_thread(task.delay)
    assert waits == [0.25]


def test_sender_inside_a_job_waits_for_the_flush_timeout(
    task: Any, silent: None, waits: list[float]
) -> None:
    with open_job("a"):
        task.delay()
    assert waits == [FLUSH_TIMEOUT, FLUSH_TIMEOUT]


@pytest.mark.parametrize("text", ["-1", "61", "soon", "nan"])
def test_invalid_enqueue_timeout_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="a number of seconds from 0 to 60"):
        Settings.load({"JOBCAST_ENQUEUE_TIMEOUT": text})
