"""Cancelled jobs whose message is delivered again while its first run goes on."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app.trace import build_tracer
from celery.concurrency.base import BasePool
from celery.worker import state

from jobcast import ProgressTask
from jobcast.celery.cancel_requests import CancelRequests
from jobcast.celery.headers import SENDING_HEADER
from jobcast.celery.request import JobRequest, request_class
from jobcast.celery.request_registry import latest_request, request_of, requests_of
from jobcast.transports.memory import MemoryBroker
from tests.unit.celery.deliveries import app_in_memory, covering, receive, send


@pytest.fixture
def app(broker: MemoryBroker) -> Iterator[Celery]:
    with app_in_memory() as app:
        yield app


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def task(app: Celery, ran: list[str]) -> Any:
    @app.task(base=ProgressTask, bind=True, shared=False, acks_late=True)
    def task(self: ProgressTask) -> None:
        ran.append(self.request.id)

    return task


@pytest.fixture
def graces() -> list[str]:
    """Return the ids of the jobs whose runs are to be terminated after their grace."""
    return []


@pytest.fixture
def requests(app: Celery, graces: list[str]) -> CancelRequests:
    consumer = SimpleNamespace(
        app=app,
        hub=None,
        connection=None,
        pool=BasePool(),  # of threads, for example
        call_soon=lambda function, *args: function(*args),
        timer=SimpleNamespace(
            call_after=lambda _seconds, _guarded, args: graces.append(args[0].job_id)
        ),
    )
    return CancelRequests(consumer)


@pytest.fixture
def errors() -> list[str]:
    """Return the errors that the errback of the message gets."""
    return []


@pytest.fixture
def message(app: Celery, task: Any, errors: list[str]) -> Any:
    @app.task(shared=False)
    def called_back(request: Any, exc: Any, traceback: Any) -> None:
        errors.append(type(exc).__name__)

    return send(task, link_error=called_back.s())


@pytest.fixture
def first(task: Any, message: Any) -> JobRequest:
    """Return the request of the first delivery, whose run goes on."""
    return begun(receive(task, message))


def begun(request: JobRequest) -> JobRequest:
    request.on_accepted(1, time.monotonic())
    return request


def take(request: JobRequest) -> bool:
    """Return whether the pool runs a task, after Celery's last check."""
    request.is_received = True
    return not request.revoked()


def result_of(request: JobRequest) -> str:
    return str(request.task.backend.get_state(request.id))


def test_all_runs_of_a_message_get_their_grace(
    task: Any, message: Any, first: JobRequest, requests: CancelRequests, graces: list[str]
) -> None:
    second = begun(receive(task, message))
    cancellation = covering(message)
    requests.learn(cancellation)
    assert first.cancellation is second.cancellation is cancellation
    assert graces == [first.id, first.id]


@pytest.mark.parametrize("outcome", ["requested", "cancelled"])
@pytest.mark.parametrize("arrives", ["before the request", "after the request"])
def test_a_waiting_delivery_leaves_the_end_of_the_job_to_the_run(
    task: Any, message: Any, first: JobRequest, requests: CancelRequests, graces: list[str],
    arrives: str, outcome: Any,
) -> None:  # fmt: skip
    waiting = [receive(task, message), receive(task, message)]
    if arrives == "before the request":
        requests.learn(covering(message, outcome))
    else:
        waiting.clear()
        requests.learn(covering(message, outcome))
        waiting.append(receive(task, message))
        requests.discard_if_cancelled(waiting[0])
    assert graces == [first.id]
    assert result_of(first) == "PENDING"
    for request in waiting:
        assert not take(request)
        assert (request.acknowledged, request.is_over) == (True, True)
    assert result_of(first) == "PENDING"
    assert not first.is_over


def test_a_request_after_the_end_of_a_second_delivery_leaves_the_end_to_the_run(
    task: Any, message: Any, first: JobRequest, requests: CancelRequests
) -> None:
    second = begun(receive(task, message))
    state.task_ready(second)
    requests.learn(covering(message, "cancelled"))
    assert first.cancellation is not None
    assert result_of(first) == "PENDING"


def test_the_retry_of_a_run_that_is_about_to_end_is_discarded(
    task: Any, message: Any, first: JobRequest, requests: CancelRequests
) -> None:
    """No run ends its job: that of the first attempt ends with the state RETRY."""
    headers = {SENDING_HEADER: message.headers[SENDING_HEADER]}
    retry = receive(task, send(task, task_id=first.id, retries=1, headers=headers))
    requests.learn(covering(message))
    assert retry.is_over
    assert result_of(first) == "REVOKED"


def test_the_run_of_an_earlier_sending_gets_its_grace(
    task: Any, message: Any, first: JobRequest, requests: CancelRequests, graces: list[str]
) -> None:
    again = receive(task, send(task, task_id=first.id))
    requests.learn(covering(message))
    assert graces == [first.id]
    assert take(again)


def test_a_delivery_in_the_queue_of_a_pool_of_threads_does_not_run(
    task: Any, message: Any, first: JobRequest, requests: CancelRequests, broker: MemoryBroker,
    ran: list[str],
) -> None:  # fmt: skip
    second = receive(task, message)
    assert take(second)
    requests.learn(covering(message))
    begun(second)
    assert not second.holds_lease
    outcome = build_tracer(task.name, task, app=task.app)(second.id, (), {}, second.request_dict)
    assert outcome.info.state == "IGNORED"
    assert ran == []
    assert broker.snapshot(first.id, None).state == "queued"


def test_a_delivery_that_a_pool_of_processes_has_gets_its_grace(
    task: Any, message: Any, first: JobRequest, requests: CancelRequests, graces: list[str]
) -> None:
    """No child knows which deliveries are skipped."""
    requests.consumer.pool = SimpleNamespace(is_green=False, terminate_job=print)
    second, third = receive(task, message), receive(task, message)
    assert take(second)
    requests.learn(covering(message))
    begun(second)
    assert second.holds_lease
    assert graces == [first.id, first.id]
    assert third.is_skipped


def test_one_of_several_waiting_deliveries_is_discarded(
    task: Any, message: Any, requests: CancelRequests, errors: list[str]
) -> None:
    waiting = [receive(task, message) for _ in range(3)]
    for _ in range(2):
        requests.learn(covering(message, "cancelled"))
    assert [request.is_over for request in waiting] == [True, False, False]
    assert result_of(waiting[0]) == "REVOKED"
    assert not any(map(take, waiting))
    assert all(request.acknowledged for request in waiting)
    assert errors == ["TaskRevokedError"]


def test_waiting_deliveries_are_left_to_one_that_the_pool_has(
    task: Any, message: Any, requests: CancelRequests, graces: list[str], errors: list[str]
) -> None:
    waiting = [receive(task, message) for _ in range(3)]
    assert take(waiting[1])
    requests.learn(covering(message))
    begun(waiting[1])
    assert graces == [waiting[1].id]
    assert not take(waiting[0])
    assert not take(waiting[2])
    assert errors == []


def test_a_waiting_delivery_of_an_earlier_sending_is_discarded(
    task: Any, message: Any, requests: CancelRequests, errors: list[str]
) -> None:
    waiting = receive(task, message)
    again = receive(task, send(task, task_id=waiting.id))
    requests.learn(covering(message, "cancelled"))
    assert not take(waiting)
    assert take(again)
    assert errors == ["TaskRevokedError"]


def test_a_run_knows_its_own_request(task: Any, message: Any) -> None:
    """A stopped run is one of several with the same id."""
    first, second = receive(task, message), receive(task, message)
    assert request_of(first._context) is first
    assert request_of(second._context) is second
    assert request_class(task.Request) is JobRequest


def test_a_delivery_is_known_after_later_ones_have_gone(task: Any, message: Any) -> None:
    first, second, third = (receive(task, message) for _ in range(3))
    assert requests_of(first.id) == [first, second, third]
    del second
    gc.collect()
    assert requests_of(first.id) == [first, third]
    del third
    gc.collect()
    assert latest_request(first.id) is first
    job_id = first.id
    del first
    gc.collect()
    assert requests_of(job_id) == []
