"""Requests to cancel jobs in the main process of a worker, with messages of a broker in memory."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import VERSION, Celery, signals
from celery.exceptions import Terminated
from celery.worker import state
from msgspec import structs

from jobcast import ProgressTask
from jobcast.celery import cancel_requests
from jobcast.celery.cancel_requests import CancelRequests
from jobcast.celery.request import JobRequest, request_class
from jobcast.celery.result_backend import can_access_results
from jobcast.celery.revoked_marks import revoked_marks
from jobcast.publishing import notice_board, runtime
from jobcast.publishing.cancellation import learn
from jobcast.publishing.notice_board import NoticeBoard, create_board
from jobcast.transports.cancellation import Cancellation
from tests.support import TIMEOUT, new_id
from tests.unit.celery.deliveries import covering, receive, send


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setenv("JOBCAST_URL", f"memory://{new_id()}")
    runtime.close()
    with Celery(
        "unit", broker=f"memory://{new_id()}", backend="cache+memory://", set_as_current=False
    ) as app:
        yield app
    cancel_requests.end()
    runtime.close()
    state.reset_state()


@pytest.fixture
def task(app: Celery) -> Any:
    @app.task(base=ProgressTask, shared=False)
    def task() -> None: ...

    return task


class Consumer:
    """An application, a pool, a loop and a timer, as Celery's consumer has."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


@pytest.fixture
def consumer(app: Celery) -> Any:
    return Consumer(
        app=app,
        hub=None,
        connection=None,
        pool=SimpleNamespace(is_green=False),
        call_soon=lambda function, *args: function(*args),
        timer=SimpleNamespace(call_after=lambda *_: None),
    )


@pytest.fixture
def requests(consumer: Any) -> CancelRequests:
    return CancelRequests(consumer)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> NoticeBoard:
    monkeypatch.setattr(notice_board, "_boards", [])
    return create_board()


def pass_to_pool(request: JobRequest) -> None:
    """Check the request, as Celery does before it gives the task to the pool."""
    request.is_received = True
    assert not request.revoked()


def accept(request: JobRequest) -> None:
    """Begin the run, as a process of the pool does."""
    request.on_accepted(1, time.monotonic())


def lose(request: JobRequest, exc: BaseException | None = None) -> None:
    """Report the loss of the child that runs a task, as a pool of processes does."""
    try:
        raise exc or WorkerLostError("the child was killed")
    except BaseException:
        request.on_failure(ExceptionInfo())


def requeues(request: JobRequest, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Record the rejections of a message instead of sending them: whether each requeues it."""
    found: list[bool] = []
    monkeypatch.setattr(request, "reject", lambda requeue: found.append(requeue))
    return found


def posted(board: NoticeBoard) -> list[str]:
    return [cancellation.job_id for cancellation in board.after(0)]


def result_of(app: Celery, job_id: str) -> str:
    """Return the state in the result backend after the thread has marked all jobs."""
    revoked_marks.close(TIMEOUT)
    return str(app.backend.get_state(job_id))


@pytest.mark.parametrize("outcome", ["cancelled", "requested", "kept"])
def test_a_message_that_comes_after_the_request_is_discarded(
    app: Celery, task: Any, requests: CancelRequests, outcome: Any
) -> None:
    """It may be a redelivery of a run in another worker, which was asked to stop and lost."""
    message = send(task)
    requests.learn(covering(message, outcome))
    request = receive(task, message)
    requests.discard_if_cancelled(request)
    assert request.is_over
    assert result_of(app, request.id) == "REVOKED"


@pytest.fixture
def failing_backend(app: Celery, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the backend fail once. Return the ids of the tasks that it should have revoked."""
    app.conf.result_backend_thread_safe = True  # every thread gets the same backend
    failed: list[str] = []
    mark = app.backend.mark_as_revoked

    def fail_once(task_id: str, *args: Any, **kwargs: Any) -> Any:
        if failed:
            return mark(task_id, *args, **kwargs)
        failed.append(task_id)
        raise OSError("the backend is away")

    monkeypatch.setattr(app.backend, "mark_as_revoked", fail_once)
    return failed


def after_grace(consumer: Any) -> list[str]:
    """Return the ids of the jobs, later, whose runs are to be terminated after their grace."""
    scheduled: list[str] = []
    consumer.timer.call_after = lambda _seconds, _guarded, args: scheduled.append(args[0].job_id)
    return scheduled


def test_a_message_that_could_not_be_discarded_gets_the_grace_of_its_run(
    task: Any, consumer: Any, board: NoticeBoard, failing_backend: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    requests, scheduled = CancelRequests(consumer), after_grace(consumer)
    message = send(task)
    request = receive(task, message)
    requests.learn(covering(message, "requested"))
    assert failing_backend == [request.id]
    assert f"job {request.id}: could not store" in caplog.text
    assert not request.is_over
    pass_to_pool(request)
    accept(request)
    assert posted(board) == [request.id]
    assert scheduled == [request.id]


def test_a_message_that_could_not_be_discarded_is_discarded_when_it_is_delivered_again(
    app: Celery, task: Any, requests: CancelRequests, failing_backend: list[str]
) -> None:
    message = send(task)
    lost = receive(task, message)
    requests.learn(covering(message, "requested"))
    redelivered = receive(task, message)
    requests.discard_if_cancelled(redelivered)
    assert (lost.is_over, redelivered.is_over) == (False, True)
    assert result_of(app, lost.id) == "REVOKED"


def test_a_repeated_request_discards_a_message_that_could_not_be_discarded(
    app: Celery, task: Any, requests: CancelRequests, failing_backend: list[str]
) -> None:
    message = send(task)
    request = receive(task, message)
    for _ in range(2):
        requests.learn(covering(message, "requested"))
    assert request.is_over
    assert result_of(app, request.id) == "REVOKED"


def test_a_waiting_message_whose_revocation_could_not_be_stored_gets_the_grace_of_its_run(
    app: Celery, task: Any, consumer: Any, failing_backend: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    requests, scheduled = CancelRequests(consumer), after_grace(consumer)
    message = send(task)
    request = receive(task, message)
    pass_to_pool(request)
    requests.learn(covering(message, "cancelled"))
    accept(request)
    assert scheduled == [request.id]
    assert result_of(app, request.id) == "REVOKED"  # at the second attempt
    assert failing_backend == [request.id]
    assert "could not store in the result backend" in caplog.text


@pytest.mark.parametrize("outcome", ["cancelled", "requested"])
def test_a_job_that_is_sent_again_is_not_discarded(
    app: Celery, task: Any, requests: CancelRequests, outcome: Any
) -> None:
    message = send(task)
    requests.learn(covering(message, outcome))
    request = receive(task, send(task, task_id=message.headers["id"]))
    requests.discard_if_cancelled(request)
    assert not request.is_over


def test_the_remembered_requests_are_bounded(
    task: Any, requests: CancelRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel_requests, "MAX_UNRECEIVED", 3)
    oldest, *_, latest = messages = [send(task) for _ in range(4)]
    for message in messages:
        requests.learn(covering(message, "requested"))
    forgotten, remembered = receive(task, oldest), receive(task, latest)
    for request in (forgotten, remembered):
        requests.discard_if_cancelled(request)
    assert (forgotten.is_over, remembered.is_over) == (False, True)


def test_a_kept_request_does_not_stop_a_run_and_may_be_withdrawn(
    task: Any, requests: CancelRequests, board: NoticeBoard
) -> None:
    """It may have failed for its client, which is about to withdraw it."""
    message = send(task)
    running = receive(task, message)
    accept(running)
    kept = covering(message, "kept")
    requests.learn(kept)
    assert posted(board) == []
    assert running.cancellation is None
    requests.learn(structs.replace(kept, outcome="withdrawn"))
    redelivered = receive(task, message)
    requests.discard_if_cancelled(redelivered)
    assert not redelivered.is_over


def test_a_kept_request_discards_a_message_that_waits_for_its_time(
    task: Any, requests: CancelRequests
) -> None:
    message = send(task)
    waiting = receive(task, message)
    requests.learn(covering(message, "kept"))
    assert waiting.is_over


def test_an_accepted_request_survives_a_kept_one_that_is_withdrawn(
    task: Any, requests: CancelRequests
) -> None:
    message = send(task)
    requests.learn(covering(message, "requested"))
    kept = covering(message, "kept")
    for request in (kept, structs.replace(kept, outcome="withdrawn")):
        requests.learn(request)
    delivered = receive(task, message)
    requests.discard_if_cancelled(delivered)
    assert delivered.is_over


def test_only_requests_of_runs_in_the_pool_are_posted(
    task: Any, requests: CancelRequests, board: NoticeBoard
) -> None:
    elsewhere, waiting, running = (send(task) for _ in range(3))
    held = [receive(task, waiting), receive(task, running)]
    accept(held[1])
    for message in (elsewhere, waiting, running):
        requests.learn(covering(message, "requested"))
    assert posted(board) == [held[1].id]
    assert [request.is_over for request in held] == [True, False]


def test_a_run_whose_start_this_process_has_not_noticed_is_asked_to_stop(
    task: Any, requests: CancelRequests, board: NoticeBoard
) -> None:
    message = send(task)
    request = receive(task, message)
    pass_to_pool(request)
    requests.learn(covering(message, "requested"))
    assert posted(board) == [request.id]


def test_a_cancelled_message_in_the_queue_of_the_pool_is_posted_when_its_run_begins(
    app: Celery, task: Any, requests: CancelRequests, board: NoticeBoard
) -> None:
    message = send(task)
    request = receive(task, message)
    pass_to_pool(request)
    requests.learn(covering(message, "cancelled"))
    assert posted(board) == []
    assert result_of(app, request.id) == "REVOKED"
    accept(request)
    assert posted(board) == [request.id]


@pytest.mark.parametrize("is_cancellable", [True, False])
@pytest.mark.parametrize("has_begun", [True, False])
def test_the_run_of_a_job_that_cannot_be_cancelled_is_not_terminated(
    app: Celery, consumer: Any, is_cancellable: bool, has_begun: bool
) -> None:
    timers: list[Any] = []
    consumer.timer.call_after = lambda *call: timers.append(call)

    @app.task(base=ProgressTask, shared=False, cancellable=is_cancellable)
    def task() -> None: ...

    message = send(task)
    request = receive(task, message)
    pass_to_pool(request)
    if has_begun:
        accept(request)
    CancelRequests(consumer).learn(covering(message, "requested"))
    if not has_begun:
        accept(request)
    assert bool(timers) == is_cancellable


def test_a_run_that_begins_while_the_request_waits_for_the_loop_is_asked_to_stop(
    task: Any, consumer: Any, board: NoticeBoard
) -> None:
    loop: list[Any] = []
    consumer.call_soon = lambda *call: loop.append(call)
    requests = CancelRequests(consumer)
    message = send(task)
    requests.learn(covering(message, "cancelled"))
    request = receive(task, message)
    requests.discard_if_cancelled(request)
    accept(request)
    assert posted(board) == []
    [(function, *args)] = loop
    function(*args)
    assert posted(board) == [request.id]


def test_a_worker_in_a_fork_learns_of_requests(consumer: Any) -> None:
    """Servers preload applications and fork, and a fork may be a worker."""
    fork = multiprocessing.get_context("fork")
    learned = fork.SimpleQueue()
    consumer.call_soon = lambda *call: learned.put(call[3])

    def work() -> None:
        cancel_requests.begin(consumer)
        learn(Cancellation(job_id="a", outcome="cancelled"))

    process = fork.Process(target=work)
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == 0
    assert not learned.empty()
    assert learned.get().job_id == "a"


def test_a_fork_of_a_worker_learns_of_no_requests(consumer: Any) -> None:
    fork = multiprocessing.get_context("fork")
    learned = fork.SimpleQueue()
    consumer.call_soon = lambda *_: learned.put("learned")
    cancel_requests.begin(consumer)
    process = fork.Process(target=learn, args=(Cancellation(job_id="a", outcome="cancelled"),))
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == 0
    assert learned.empty()
    learn(Cancellation(job_id="a", outcome="cancelled"))
    assert not learned.empty()


def test_a_worker_that_has_ended_learns_of_no_requests(consumer: Any) -> None:
    learned: list[Any] = []
    consumer.call_soon = lambda *call: learned.append(call)
    cancel_requests.begin(consumer)
    cancel_requests.end()
    learn(Cancellation(job_id="a", outcome="cancelled"))
    assert learned == []


def test_a_cancelled_job_without_a_worker_is_revoked(
    app: Celery, task: Any, requests: CancelRequests
) -> None:
    message = send(task)
    requests.learn(covering(message, "cancelled"))
    assert result_of(app, message.headers["id"]) == "REVOKED"


@pytest.mark.parametrize(
    ("options", "state"), [
        ({"ignore_result": True}, "PENDING"),
        ({"ignore_result": True, "store_errors_even_if_ignored": True}, "REVOKED"),
    ],
)  # fmt: skip
def test_the_options_of_the_task_decide_whether_its_revocation_is_stored(
    app: Celery, requests: CancelRequests, options: dict[str, Any], state: str
) -> None:
    @app.task(base=ProgressTask, shared=False, **options)
    def task() -> None: ...

    message = send(task)
    requests.learn(covering(message, "cancelled"))
    assert result_of(app, message.headers["id"]) == state


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "STARTED", "REVOKED"])
def test_the_state_of_a_task_that_runs_or_has_ended_stays(
    app: Celery, task: Any, requests: CancelRequests, state: str
) -> None:
    message = send(task)
    job_id = message.headers["id"]
    app.backend.store_result(job_id, None, state)
    requests.learn(covering(message, "cancelled"))
    assert result_of(app, job_id) == state


def test_a_request_for_an_earlier_sending_stores_nothing(
    app: Celery, task: Any, requests: CancelRequests
) -> None:
    earlier = send(task)
    job_id = earlier.headers["id"]
    held = receive(task, send(task, task_id=job_id))
    requests.learn(covering(earlier, "cancelled"))
    assert result_of(app, job_id) == "PENDING"
    assert not held.is_over


def test_requests_of_unknown_tasks_follow_the_configuration(
    app: Celery, requests: CancelRequests
) -> None:
    app.conf.task_ignore_result = True
    requests.learn(Cancellation(job_id="a", outcome="cancelled"))
    assert result_of(app, "a") == "PENDING"
    app.conf.task_ignore_result = False
    requests.learn(Cancellation(job_id="a", outcome="cancelled"))
    assert result_of(app, "a") == "REVOKED"


def test_a_stored_success_is_that_of_the_run(app: Celery, task: Any) -> None:
    request = receive(task, send(task))
    accept(request)
    assert request.stored_success() is None
    app.backend.mark_as_done(request.id, "done")
    success = request.stored_success()
    assert success is not None
    assert success["result"] == "done"


def test_the_success_of_an_earlier_sending_does_not_count(app: Celery, task: Any) -> None:
    """Backends for key-value stores keep it while the job that is sent again runs."""
    job_id = new_id()
    app.backend.mark_as_done(job_id, "done")
    request = receive(task, send(task, task_id=job_id))
    accept(request)
    assert result_of(app, job_id) == "SUCCESS"
    assert request.stored_success() is None


celery_reads_success = pytest.mark.skipif(
    VERSION < (5, 7), reason="Celery reads no results of lost runs before"
)


class Away(BaseException):
    """Ends a read that is repeated without limit."""


def test_a_result_is_read_at_most_four_times_from_a_backend_that_is_away(
    app: Celery, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read blocks the loop that serves all children."""
    reads: list[str] = []

    def fail(task_id: str) -> Any:
        reads.append(task_id)
        if len(reads) > 4:
            raise Away
        raise OSError("the backend is away")

    monkeypatch.setattr(app.backend, "always_retry", True)
    monkeypatch.setattr(app.backend, "exception_safe_to_retry", lambda _: True)
    monkeypatch.setattr(app.backend, "_get_task_meta_for", fail)
    request = receive(task, send(task))
    accept(request)
    assert request.stored_success() is None
    assert reads


@celery_reads_success
def test_celery_and_the_job_share_one_read_of_the_result_of_a_lost_run(
    app: Celery, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = receive(task, send(task))
    accept(request)
    app.backend.mark_as_done(request.id, "done")
    reads: list[str] = []
    read = app.backend._get_task_meta_for

    def counted(task_id: str) -> Any:
        reads.append(task_id)
        return read(task_id)

    monkeypatch.setattr(app.backend, "_get_task_meta_for", counted)
    lose(request)
    assert reads == [request.id]
    assert result_of(app, request.id) == "SUCCESS"


@celery_reads_success
def test_celery_counts_the_success_of_an_earlier_sending_as_little_as_the_job_does(
    app: Celery, task: Any
) -> None:
    job_id = new_id()
    app.backend.mark_as_done(job_id, "done")
    request = receive(task, send(task, task_id=job_id))
    accept(request)
    assert request._success_was_stored() is False


@pytest.mark.parametrize(
    ("backend", "can_access"), [
        (SimpleNamespace(), True),
        (SimpleNamespace(as_uri=lambda: "rpc://"), False),
        (SimpleNamespace(as_uri=lambda: "redis://"), True),
    ],
)  # fmt: skip
def test_a_backend_may_lack_an_address(backend: Any, can_access: bool) -> None:
    assert can_access_results(backend) == can_access


def events_of_a_stored_success(task: Any, exc: BaseException) -> tuple[list[Any], bool, bool]:
    """Return the events of a run that fails after it has stored its success, and its end."""
    events: list[Any] = []
    eventer = SimpleNamespace(enabled=True, send=lambda *args, **kw: events.append((args, kw)))
    message = send(task)
    request: JobRequest = request_class(task.Request)(
        message, app=task.app, task=task, eventer=eventer, headers=message.headers, decoded=False
    )
    accept(request)
    task.backend.mark_as_done(request.id, "done")
    events.clear()
    lose(request, exc)
    for _, fields in events:
        assert fields.pop("uuid") == request.id
    return events, request.acknowledged, request in state.active_requests


@celery_reads_success
def test_a_terminated_run_with_a_stored_success_ends_as_a_lost_one_does(app: Celery) -> None:
    """A branch of Celery's ``on_failure`` is repeated for terminated runs."""

    @app.task(base=ProgressTask, shared=False, acks_late=True, send_events=True)
    def task() -> None: ...

    lost = events_of_a_stored_success(task, WorkerLostError("the child was killed"))
    assert lost == ([(("task-succeeded",), {"result": "'done'", "runtime": None})], True, False)
    assert events_of_a_stored_success(task, Terminated(15)) == lost


def test_celery_checks_for_a_revocation_at_arrival_and_before_the_pool_has_the_task(
    app: Celery, task: Any, consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``JobRequest`` takes the check that follows ``task_received`` for the second one."""
    steps: list[str] = []
    check = JobRequest.revoked

    def revoked(request: JobRequest) -> bool:
        steps.append("revoked")
        return check(request)

    monkeypatch.setattr(JobRequest, "revoked", revoked)
    consumer.hostname, consumer.connection_errors, consumer.event_dispatcher = "unit", (), None
    consumer.timer.call_at = consumer.apply_eta_task = None
    consumer.disable_rate_limits, consumer.task_buckets = True, {task.name: None}
    consumer.on_task_request = lambda request: request.execute_using_pool(consumer.pool)
    consumer._limit_task = consumer._limit_post_eta = None
    consumer.controller = SimpleNamespace(state=SimpleNamespace(revoked=state.revoked))
    consumer.pool.apply_async = lambda *_, **__: steps.append("in the pool")

    def received(**_: Any) -> None:
        steps.append("received")

    with connected(signals.task_received, received):
        message = send(task, expires=TIMEOUT)
        task.start_strategy(app, consumer)(message, None, print, print, ())
    assert steps == ["revoked", "received", "revoked", "in the pool"]


@contextmanager
def connected(signal: Any, receiver: Any) -> Iterator[None]:
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receiver)


def exceed_time_limit(request: JobRequest) -> None:
    """Report that the child exceeds its time limit, as a pool of threads does."""
    request.on_timeout(soft=False, timeout=1)


@pytest.mark.parametrize("end", [lose, exceed_time_limit])
@pytest.mark.parametrize("is_cancellable", [True, False])
def test_celery_requeues_no_run_that_is_lost_in_its_grace(
    app: Celery, requests: CancelRequests, is_cancellable: bool, end: Callable[[JobRequest], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    @app.task(
        base=ProgressTask, shared=False, acks_late=True, reject_on_worker_lost=True,
        acks_on_failure_or_timeout=False, cancellable=is_cancellable,
    )  # fmt: skip
    def task() -> None: ...

    message = send(task)
    request = receive(task, message)
    accept(request)
    requeued = requeues(request, monkeypatch)
    requests.learn(covering(message, "requested"))
    end(request)
    assert requeued == ([] if is_cancellable else [True])
    assert request.acknowledged == is_cancellable
    assert (result_of(app, request.id) == "REVOKED") == is_cancellable


@pytest.mark.parametrize("state", ["PENDING", "STARTED", "PROGRESS", "DOWNLOADING", "SUCCESS"])
def test_the_revocation_of_a_lost_run_is_stored_when_the_backend_answers_again(
    app: Celery, task: Any, requests: CancelRequests, failing_backend: list[str], state: str
) -> None:
    message = send(task)
    request = receive(task, message)
    accept(request)
    requests.learn(covering(message, "requested"))
    app.backend.store_result(request.id, None, state if state != "SUCCESS" else "STARTED")
    with pytest.raises(OSError, match="away"):
        lose(request)
    if state == "SUCCESS":
        app.backend.mark_as_done(request.id, "done")
    requests.learn(covering(message, "cancelled"))  # a repeated request
    assert failing_backend == [request.id]
    assert result_of(app, request.id) == ("SUCCESS" if state == "SUCCESS" else "REVOKED")


def test_the_revocation_of_a_lost_run_is_not_stored_if_its_message_says_so(
    app: Celery, task: Any, requests: CancelRequests, failing_backend: list[str]
) -> None:
    message = send(task, ignore_result=True)
    request = receive(task, message)
    accept(request)
    requests.learn(covering(message, "requested"))
    with pytest.raises(OSError, match="away"):
        lose(request)
    assert result_of(app, request.id) == "PENDING"


def test_the_message_of_a_lost_run_is_delivered_again_if_its_end_cannot_be_stored(
    app: Celery, requests: CancelRequests, failing_backend: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The next delivery ends at its start, with its chord and its errbacks."""

    @app.task(base=ProgressTask, shared=False, acks_late=True)
    def task() -> None: ...

    message = send(task)
    request = receive(task, message)
    accept(request)
    requeued = requeues(request, monkeypatch)
    requests.learn(covering(message, "requested"))
    with pytest.raises(OSError, match="away"):
        lose(request)
    assert requeued == [True]


@pytest.mark.parametrize("exc", [Terminated(-15), WorkerLostError("killed"), SystemExit(-15)])
def test_a_run_that_celery_has_cancelled_is_left_to_its_next_delivery(
    app: Celery, consumer: Any, exc: BaseException
) -> None:
    """Celery cancels runs when it loses the broker, and reports them as retried."""
    errors: list[str] = []

    @app.task(shared=False)
    def called_back(request: Any, exc: Any, traceback: Any) -> None:
        errors.append(type(exc).__name__)

    @app.task(base=ProgressTask, shared=False, acks_late=True)
    def task() -> None: ...

    message = send(task, link_error=called_back.s())
    request = receive(task, message)
    accept(request)
    CancelRequests(consumer).learn(covering(message, "requested"))
    consumer.pool.terminate_job = lambda *_: None
    request.cancel(consumer.pool)
    assert app.backend.get_state(request.id) == "RETRY"
    lose(request, exc)
    assert result_of(app, request.id) == "RETRY"
    assert (request.acknowledged, errors) == (False, [])


def test_an_ended_message_that_comes_again_is_not_reported_as_scheduled(
    app: Celery, task: Any, consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[JobRequest] = []
    monkeypatch.setattr(JobRequest, "report_scheduled", lambda self: reported.append(self))
    cancel_requests.begin(consumer)
    message = send(task, countdown=600)
    first = receive(task, message)
    signals.task_received.send(sender=consumer, request=first)
    learn(covering(message, "cancelled"))
    assert first.is_over
    again = receive(task, message)
    signals.task_received.send(sender=consumer, request=again)
    assert again.acknowledged
    assert reported == [first]


def test_a_run_that_is_lost_before_the_loop_handles_its_request_is_cancelled(
    app: Celery, task: Any, consumer: Any
) -> None:
    """Its child may have learned of the request before."""
    consumer.call_soon = lambda *_: None
    cancel_requests.begin(consumer)
    message = send(task)
    request = receive(task, message)
    accept(request)
    learn(covering(message, "requested"))
    assert request.cancellation is None
    lose(request)
    assert result_of(app, request.id) == "REVOKED"


def test_a_run_that_the_pool_has_forgotten_is_not_terminated(
    app: Celery, task: Any, consumer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery before 5.7 forgets runs when it loses the broker: the process may run another task."""
    calls: list[Any] = []
    consumer.pool.terminate_job = lambda *call: calls.append(call)
    consumer.timer.call_after = lambda _seconds, function, args: calls.append((function, args))
    message = send(task)
    request = receive(task, message)
    accept(request)
    CancelRequests(consumer).learn(covering(message, "requested"))
    [(function, args)] = calls
    calls.clear()
    request._apply_result = lambda: None
    function(*args)
    assert calls == []
    assert f"job {request.id}: not terminating its run" in caplog.text
