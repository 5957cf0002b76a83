"""The messages of cancelled jobs in a worker whose main process has an event loop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery
from celery.worker import state
from kombu.asynchronous import Hub

from jobcast import ProgressTask
from jobcast.celery import discards
from jobcast.celery.cancel_requests import CancelRequests
from jobcast.celery.request import JobRequest
from jobcast.celery.revoked_marks import revoked_marks
from jobcast.transports.memory import MemoryBroker
from tests.support import TIMEOUT
from tests.unit.celery.deliveries import app_in_memory, covering, receive, send


@dataclass
class Pool:
    is_green = False
    executed: list[JobRequest] = field(default_factory=list)
    is_full: bool = False
    queue: deque[JobRequest] = field(default_factory=deque)


class Consumer:
    """The parts of Celery's consumer, with its event loop, that a worker's requests use."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.hub: Hub | None = Hub()
        self.timer = self.hub.timer
        self.pool = Pool()
        self.connection = object()

    def call_soon(self, function: Callable[..., None], *args: Any) -> None:
        function(*args)

    def on_task_request(self, request: JobRequest) -> None:
        """Give a task to the pool, as Celery does after its last check."""
        self.pool.queue.append(request)
        if not self.pool.is_full:
            self.run_pool()

    def run_pool(self) -> None:
        while self.pool.queue:
            request = self.pool.queue.popleft()
            request.is_received = True
            if not request.revoked():
                self.pool.executed.append(request)

    def run_timers(self) -> None:
        """Run what is due now, and nothing that this schedules for later."""
        if self.hub is not None:
            self.hub.fire_timers(max_timers=1)

    def run_all_timers(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        while self.hub is not None and self.timer._queue:
            assert time.monotonic() < deadline
            self.hub.fire_timers()


@pytest.fixture
def app(broker: MemoryBroker) -> Iterator[Celery]:
    with app_in_memory() as app:
        app.conf.result_backend_thread_safe = True  # every thread gets the same backend
        yield app


@pytest.fixture
def consumer(app: Celery) -> Iterator[Consumer]:
    consumer = Consumer(app)
    hub = consumer.hub
    yield consumer
    if hub is not None:
        hub.close()
    revoked_marks.close(0)


@pytest.fixture
def requests(consumer: Consumer) -> CancelRequests:
    return CancelRequests(consumer)


@pytest.fixture
def task(app: Celery) -> Any:
    @app.task(base=ProgressTask, shared=False, cancel_grace=0.0)
    def task() -> None: ...

    return task


@pytest.fixture
def called_back() -> list[str]:
    """Return the ids of the jobs whose errbacks were called."""
    return []


@pytest.fixture
def errback(app: Celery, called_back: list[str]) -> Any:
    @app.task(shared=False)
    def errback(request: Any, exc: Any, traceback: Any) -> None:
        called_back.append(request.id)

    return errback.s()


@pytest.fixture
def messages(task: Any, errback: Any) -> list[Any]:
    return [send(task, link_error=errback) for _ in range(5)]


@pytest.fixture
def waiting(task: Any, messages: list[Any]) -> list[JobRequest]:
    return [receive(task, message) for message in messages]


@pytest.fixture
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a slice after its first message."""
    monkeypatch.setattr(discards, "SLICE", -1.0)
    monkeypatch.setattr(discards, "PAUSE", 0.001)


def states_of(requests: list[JobRequest]) -> list[str]:
    return [str(request.task.backend.get_state(request.id)) for request in requests]


def cancel(requests: CancelRequests, messages: list[Any], outcome: str = "cancelled") -> None:
    for message in messages:
        requests.learn(covering(message, outcome))


@pytest.mark.usefixtures("short_slices")
def test_the_loop_runs_between_the_messages_of_a_burst(
    consumer: Consumer, requests: CancelRequests, messages: list[Any], waiting: list[JobRequest],
    called_back: list[str],
) -> None:  # fmt: skip
    cancel(requests, messages)
    assert states_of(waiting) == ["PENDING"] * 5
    for ended in range(1, 6):
        consumer.run_timers()
        assert states_of(waiting) == ["REVOKED"] * ended + ["PENDING"] * (5 - ended)
        assert [request.acknowledged for request in waiting].count(True) == ended
        time.sleep(discards.PAUSE)
    assert called_back == [request.id for request in waiting]
    consumer.run_all_timers()


def test_the_loop_does_not_wait_before_it_acknowledges_the_last_message(
    consumer: Consumer, requests: CancelRequests, messages: list[Any], waiting: list[JobRequest]
) -> None:
    """Celery acknowledges in the next iteration; its loop waits for the next timer before."""
    cancel(requests, messages)
    consumer.run_timers()
    assert consumer.hub is not None
    assert consumer.hub.fire_timers() <= discards.PAUSE
    consumer.run_all_timers()
    assert not consumer.timer._queue


def test_a_slice_ends_all_messages_that_it_has_time_for(
    consumer: Consumer, requests: CancelRequests, messages: list[Any], waiting: list[JobRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(discards, "SLICE", TIMEOUT)
    cancel(requests, messages)
    consumer.run_timers()
    assert states_of(waiting) == ["REVOKED"] * 5


def test_a_task_whose_time_comes_before_its_message_is_ended_does_not_run(
    consumer: Consumer, requests: CancelRequests, messages: list[Any], waiting: list[JobRequest]
) -> None:
    cancel(requests, messages)
    for request in waiting:
        state.task_reserved(request)
        consumer.on_task_request(request)
    assert consumer.pool.executed == []
    assert not state.reserved_requests & set(waiting)
    consumer.run_all_timers()
    assert states_of(waiting) == ["REVOKED"] * 5


def let_backend_fail(
    app: Celery, monkeypatch: pytest.MonkeyPatch, error: Exception, failures: float = float("inf")
) -> list[str]:
    """Let the backend fail. Return the ids of the tasks that it should have revoked."""
    failed: list[str] = []
    mark = app.backend.mark_as_revoked

    def mark_as_revoked(task_id: str, *args: Any, **kwargs: Any) -> Any:
        if len(failed) >= failures:
            return mark(task_id, *args, **kwargs)
        failed.append(task_id)
        raise error

    monkeypatch.setattr(app.backend, "mark_as_revoked", mark_as_revoked)
    return failed


@pytest.mark.parametrize("has_loop", [True, False])
@pytest.mark.usefixtures("short_slices")
def test_one_message_waits_for_a_backend_that_is_away_and_the_others_fall_back(
    app: Celery, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    has_loop: bool,
) -> None:  # fmt: skip
    """A thread stores their states later, and their runs end at their start."""
    if not has_loop:
        consumer.hub = None
    failed = let_backend_fail(app, monkeypatch, OSError("the backend is away"), failures=1)
    cancel(requests, messages)
    consumer.run_all_timers()
    assert failed == [waiting[0].id]
    assert not any(request.is_over or request.acknowledged for request in waiting)
    assert all(request.cancellation for request in waiting)
    assert caplog.text.count("the result backend does not answer") == 1
    revoked_marks.close(TIMEOUT)
    assert states_of(waiting) == ["REVOKED"] * 5


def test_the_failure_of_one_message_does_not_concern_the_others(
    app: Celery, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(discards, "SLICE", TIMEOUT)
    let_backend_fail(app, monkeypatch, ValueError("no such queue"), failures=1)
    cancel(requests, messages, "requested")
    consumer.run_all_timers()
    assert [request.is_over for request in waiting] == [False, True, True, True, True]


def test_a_task_that_was_refused_meanwhile_runs_if_its_message_cannot_be_ended(
    app: Celery, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its run ends at its start, and stores the end."""
    let_backend_fail(app, monkeypatch, OSError("the backend is away"))
    cancel(requests, messages, "requested")
    due, *later = waiting
    consumer.on_task_request(due)
    consumer.run_all_timers()
    assert consumer.pool.executed == [due]
    assert due in state.reserved_requests
    assert all(request.cancellation for request in later)


def test_a_message_that_has_been_ended_is_only_acknowledged_when_it_comes_again(
    task: Any, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], called_back: list[str],
) -> None:  # fmt: skip
    cancel(requests, messages)
    consumer.run_all_timers()
    again = [receive(task, message) for message in messages]
    for request in again:
        requests.discard_if_cancelled(request)
    assert all(request.acknowledged for request in again)
    consumer.run_all_timers()
    for request in again:
        consumer.on_task_request(request)
    assert consumer.pool.executed == []
    assert called_back == [request.id for request in waiting]


def test_the_ended_messages_are_bounded(
    task: Any, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(discards, "MAX_ENDED", 2)
    cancel(requests, messages)
    consumer.run_all_timers()
    again = [receive(task, message) for message in messages]
    for request in again:
        requests.discard_if_cancelled(request)
    assert [request.acknowledged for request in again] == [False] * 3 + [True] * 2


def test_a_later_delivery_of_a_message_takes_the_place_of_the_former_one(
    task: Any, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], called_back: list[str],
) -> None:  # fmt: skip
    """The connection of the former one may be lost. If it is not, both are acknowledged."""
    cancel(requests, messages)
    requests.learn(covering(messages[0]))  # the worker remembers it
    again = receive(task, messages[0])
    requests.discard_if_cancelled(again)
    consumer.run_all_timers()
    assert (waiting[0].acknowledged, again.acknowledged) == (True, True)
    assert sorted(called_back) == sorted(request.id for request in waiting)


@pytest.mark.parametrize("is_due", [True, False])
def test_only_the_last_delivery_runs_if_the_message_cannot_be_ended(
    app: Celery, task: Any, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    monkeypatch: pytest.MonkeyPatch, is_due: bool,
) -> None:  # fmt: skip
    let_backend_fail(app, monkeypatch, OSError("the backend is away"))
    requests.learn(covering(messages[0]))  # the worker remembers it
    deliveries = [receive(task, messages[0]) for _ in range(2)]
    for request in deliveries:
        requests.discard_if_cancelled(request)
        if is_due:
            consumer.on_task_request(request)
    consumer.run_all_timers()
    if not is_due:
        for request in deliveries:
            consumer.on_task_request(request)
    assert consumer.pool.executed == deliveries[1:]
    assert [request.acknowledged for request in deliveries] == [True, False]


def test_a_message_that_could_not_be_ended_does_not_run_after_its_next_delivery(
    app: Celery, task: Any, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], called_back: list[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    let_backend_fail(app, monkeypatch, OSError("the backend is away"), failures=1)
    cancel(requests, messages[:1])
    consumer.run_all_timers()
    assert not waiting[0].is_over
    again = receive(task, messages[0])
    requests.discard_if_cancelled(again)
    consumer.run_all_timers()
    assert again.is_over
    consumer.on_task_request(waiting[0])
    assert consumer.pool.executed == []
    assert waiting[0].acknowledged
    assert called_back == [again.id]


def test_a_request_that_waits_for_the_pool_is_given_to_it_once(
    app: Celery, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It may be cancelled again while it waits."""
    let_backend_fail(app, monkeypatch, OSError("the backend is away"))
    cancel(requests, messages[:1])
    consumer.on_task_request(waiting[0])
    consumer.pool.is_full = True
    for _ in range(2):
        consumer.run_all_timers()
        cancel(requests, messages[:1])
    consumer.run_all_timers()
    consumer.run_pool()
    assert consumer.pool.executed == [waiting[0]]


@pytest.mark.skipif(not hasattr(state, "task_scheduled"), reason="Celery before 5.7 has no list")
def test_a_scheduled_task_whose_message_cannot_be_ended_stays_scheduled(
    app: Celery, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Celery cancels its timer if the broker is lost."""
    let_backend_fail(app, monkeypatch, OSError("the backend is away"))
    waiting[0]._eta_timer_entry = consumer.timer.call_after(3600, print)
    state.task_scheduled(waiting[0])
    cancel(requests, messages[:1])
    consumer.run_timers()
    assert not waiting[0].is_over
    assert waiting[0] in state.scheduled_requests
    assert state.requests[waiting[0].id] is waiting[0]


def test_a_slow_errback_does_not_count_as_a_backend_that_is_away(
    app: Celery, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(discards, "SLICE", -1.0)
    calls: list[str] = []

    def fail_once(task_id: str, *_: Any, **__: Any) -> None:
        calls.append(task_id)
        if len(calls) == 1:
            raise LookupError("no such errback")

    monkeypatch.setattr(app.backend, "mark_as_failure", fail_once)
    cancel(requests, messages)
    consumer.run_all_timers()
    assert states_of(waiting) == ["REVOKED"] * 5


def test_an_error_after_the_acknowledgement_is_logged(
    app: Celery, consumer: Consumer, requests: CancelRequests, messages: list[Any],
    waiting: list[JobRequest], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def fail(*_: Any, **__: Any) -> None:
        raise LookupError("no such errback")

    monkeypatch.setattr(app.backend, "mark_as_failure", fail)
    cancel(requests, messages[:1])
    consumer.run_all_timers()
    assert waiting[0].is_over
    assert waiting[0].acknowledged
    assert f"job {waiting[0].id}: discarded its message, but could not call its errbacks" in (
        caplog.text
    )


@pytest.mark.parametrize("celery_clears_the_timer", [True, False])
def test_the_calls_of_a_worker_survive_a_lost_connection(
    consumer: Consumer, requests: CancelRequests, messages: list[Any], waiting: list[JobRequest],
    celery_clears_the_timer: bool,
) -> None:  # fmt: skip
    """Celery before 5.7 clears the timer."""
    cancel(requests, messages)
    if celery_clears_the_timer:
        consumer.timer.clear()
    requests.timed_calls.restore()  # another task, at the same connection
    assert bool(consumer.timer._queue) != celery_clears_the_timer
    for _ in range(3):
        consumer.connection = object()
        requests.timed_calls.restore()
    assert [entry for entry in consumer.timer._queue if not entry[2].canceled] == [
        consumer.timer._queue[-1]
    ]
    consumer.run_all_timers()
    assert states_of(waiting) == ["REVOKED"] * 5
