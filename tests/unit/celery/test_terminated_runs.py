"""Runs of cancelled jobs that are terminated after their grace, with results in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from signal import SIGKILL, SIGTERM
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR, SCHED_STRATEGY_FCFS
from celery.exceptions import Terminated, TimeLimitExceeded
from celery.worker.request import create_request_cls
from msgspec import structs

from jobcast import ProgressTask
from jobcast.celery.background import background
from jobcast.celery.cancelled import mark_cancelled
from jobcast.celery.failures import RunCancelled
from jobcast.celery.headers import SENDING_HEADER
from jobcast.celery.request import JobRequest, request_class
from jobcast.publishing import runtime
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.memory import MemoryBroker
from tests.support import TIMEOUT
from tests.unit.celery.deliveries import app_in_memory, send

PID = 1234


@pytest.fixture
def app(broker: MemoryBroker) -> Iterator[Celery]:
    with app_in_memory() as app:
        yield app


class Pool:
    """A pool that only records which signals it would send."""

    is_green = False

    def __init__(self, strategy: int = SCHED_STRATEGY_FAIR) -> None:
        self.sent: list[tuple[int, int]] = []
        self._pool = SimpleNamespace(sched_strategy=strategy)

    def apply_async(self, *args: Any, **options: Any) -> None: ...

    def terminate_job(self, pid: int, signum: int) -> None:
        self.sent.append((pid, signum))


class Run:
    """A run of a task that the pool has terminated, and the answers to its message."""

    def __init__(self, app: Celery, pool: Pool) -> None:
        # Each option would have Celery requeue the message after a loss.
        @app.task(
            base=ProgressTask, shared=False, acks_late=True, reject_on_worker_lost=True,
            acks_on_timeout=False, acks_on_failure_or_timeout=False,
        )  # fmt: skip
        def task() -> None: ...

        @app.task(shared=False)
        def called_back(request: Any, exc: Any, traceback: Any) -> None:
            self.errors.append(type(exc).__name__)

        self.answers: list[str] = []
        self.errors: list[str] = []  # for the errback
        message = send(task, link_error=called_back.s())
        cls = create_request_cls(request_class(task.Request), task, pool, "unit", None, app=app)
        self.request: JobRequest = cls(
            message, app=app, task=task, headers=message.headers, decoded=False,
            on_ack=lambda *_: self.answers.append("acknowledged"),
            on_reject=lambda _logger, _errors, requeue: self.answers.append(
                "requeued" if requeue else "rejected"
            ),
        )  # fmt: skip
        self.request.on_accepted(PID, time.monotonic())
        self.request.cancellation = Cancellation(
            job_id=self.request.id, sending=message.headers[SENDING_HEADER], by="alice"
        )
        self.request.send_sigterm(pool)

    def fail(self, exc: BaseException) -> None:
        """Report an exception as a pool of processes does."""
        try:
            raise exc
        except BaseException:
            self.request.on_failure(ExceptionInfo())

    @property
    def state(self) -> str:
        return str(self.request.task.backend.get_state(self.request.id))

    def ended(self, broker: MemoryBroker) -> str:
        """Return the state of the job."""
        assert background.call(lambda: None).wait(TIMEOUT)
        here = runtime.get_runtime()
        assert here is not None
        here.publisher.flush()
        return str(broker.snapshot(self.request.id, None).state)


def fail_away(*_: Any, **__: Any) -> None:
    raise OSError("the backend is away")


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
def run(app: Celery, pool: Pool) -> Run:
    run = Run(app, pool)
    assert pool.sent == [(PID, SIGTERM)]
    assert (run.state, run.answers, run.request.is_over) == ("PENDING", [], False)
    return run


@pytest.mark.parametrize(
    "loss", [
        Terminated(15), WorkerLostError("the child was killed"), TimeLimitExceeded(1),
        SystemExit(-241),
    ],
)  # fmt: skip
def test_a_terminated_run_without_an_outcome_is_revoked_and_never_requeued(
    run: Run, pool: Pool, broker: MemoryBroker, loss: BaseException
) -> None:
    run.fail(loss)
    if isinstance(loss, TimeLimitExceeded):
        run.request.on_timeout(False, 1)
    assert (run.state, run.answers, run.request.is_over) == ("REVOKED", ["acknowledged"], True)
    assert run.ended(broker) == "cancelled"
    assert pool.sent == [(PID, SIGTERM)]


@pytest.mark.parametrize("result", [(False, None, None), ExceptionInfo])
def test_a_killed_greenlet_is_revoked(run: Run, broker: MemoryBroker, result: Any) -> None:
    """The pools of greenlets call ``on_success``."""
    run.request.on_success(result)
    assert (run.state, run.answers, run.request.is_over) == ("REVOKED", ["acknowledged"], True)
    assert run.ended(broker) == "cancelled"


def test_the_time_limit_of_a_terminated_greenlet_revokes_it(run: Run, broker: MemoryBroker) -> None:
    run.request.on_timeout(False, 1)
    assert (run.state, run.answers) == ("REVOKED", ["acknowledged"])
    assert run.ended(broker) == "cancelled"


def test_a_soft_time_limit_leaves_the_outcome_to_the_run(run: Run) -> None:
    run.request.on_timeout(True, 1)
    assert (run.state, run.answers, run.request.is_over) == ("PENDING", [], False)


def test_a_shutdown_kills_a_terminated_run_and_revokes_it(
    run: Run, pool: Pool, broker: MemoryBroker
) -> None:
    """Celery would requeue the message, or store a retry that it never sends."""
    run.request.cancel(pool)
    run.fail(Terminated(-9))
    assert pool.sent == [(PID, SIGTERM), (PID, SIGKILL)]
    assert (run.state, run.answers, run.request.is_over) == ("REVOKED", ["acknowledged"], True)
    assert run.ended(broker) == "cancelled"


def test_a_shutdown_leaves_the_end_of_a_greenlet_to_the_report_of_its_pool(
    run: Run, pool: Pool, broker: MemoryBroker
) -> None:
    """The greenlet may catch the exception, and return."""
    pool.is_green = True
    run.request.cancel(pool)
    assert pool.sent == [(PID, SIGTERM), (PID, SIGKILL)]
    assert (run.state, run.answers, run.request.is_over) == ("PENDING", [], False)
    run.request.task.backend.mark_as_done(run.request.id, "done")
    run.request.on_success((0, "'done'", 0.1))
    assert (run.state, run.answers, run.errors) == ("SUCCESS", ["acknowledged"], [])


def test_a_shutdown_goes_on_if_the_end_of_a_terminated_run_cannot_be_stored(
    run: Run, pool: Pool, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.request.task.backend, "mark_as_revoked", fail_away)
    run.request.cancel(pool)
    assert run.answers == ["requeued"]
    assert run.ended(broker) == "cancelled"


def test_a_terminated_run_that_has_stored_its_result_succeeds(
    run: Run, broker: MemoryBroker
) -> None:
    run.request.task.backend.mark_as_done(run.request.id, "done")
    run.fail(Terminated(15))
    assert (run.state, run.answers) == ("SUCCESS", ["acknowledged"])
    assert run.ended(broker) == "complete"


def lose(run: Run, pool: Pool, by: str) -> None:
    """End a terminated run without a report of its own."""
    if by == "its loss":
        run.fail(Terminated(15))
    elif by == "a time limit":
        run.request.on_timeout(False, 1)
    else:
        run.request.cancel(pool)


losses = pytest.mark.parametrize("by", ["its loss", "a time limit", "a shutdown"])


@losses
def test_a_terminated_run_that_has_stored_its_failure_fails_once(
    run: Run, pool: Pool, broker: MemoryBroker, by: str
) -> None:
    request = run.request
    error = LookupError("no such row")
    request.task.backend.mark_as_failure(request.id, error, request=request._context)
    lose(run, pool, by)
    assert (run.state, run.errors) == ("FAILURE", ["LookupError"])
    assert (run.answers, request.is_over) == (["acknowledged"], True)
    assert run.ended(broker) == "error"


@losses
def test_a_terminated_run_that_has_stored_its_cancellation_is_cancelled_once(
    run: Run, pool: Pool, broker: MemoryBroker, by: str
) -> None:
    request = run.request
    mark_cancelled(request.task, request._context, request.cancelled_error)
    lose(run, pool, by)
    assert (run.state, run.errors) == ("REVOKED", ["TaskRevokedError"])
    assert (run.answers, request.is_over) == (["acknowledged"], True)
    assert run.ended(broker) == "cancelled"


def test_the_mark_of_a_job_that_waited_is_not_the_outcome_of_its_run(run: Run) -> None:
    """A worker that marks a job calls none of its errbacks."""
    request = run.request
    assert request.cancellation is not None
    request.cancellation = structs.replace(request.cancellation, outcome="cancelled")
    request.task.backend.mark_as_revoked(request.id, "cancelled")
    run.fail(Terminated(15))
    assert (run.state, run.errors) == ("REVOKED", ["TaskRevokedError"])


@pytest.mark.parametrize("status", ["FAILURE", "REVOKED"])
def test_a_run_knows_the_outcome_that_it_has_stored(run: Run, status: str) -> None:
    backend = run.request.task.backend
    assert run.request.stored_outcome() is None
    backend.store_result(run.request.id, None, "STARTED")
    assert run.request.stored_outcome() is None
    backend.store_result(run.request.id, LookupError("no such row"), status)
    run.request.time_start, begun = time.time() + TIMEOUT, run.request.time_start
    assert run.request.stored_outcome() is None, "the outcome is that of an earlier sending"
    run.request.time_start = begun
    outcome = run.request.stored_outcome()
    assert outcome is not None
    assert outcome["status"] == status
    assert run.request.stored_success() is None


def test_a_stored_failure_whose_time_cannot_be_compared_may_be_an_earlier_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = {"status": "FAILURE", "result": None, "date_done": datetime(2026, 1, 1)}  # noqa: DTZ001
    monkeypatch.setattr(run.request.task.backend, "_get_task_meta_for", lambda _: meta)
    assert run.request.stored_outcome() is None


def test_the_result_of_a_terminated_run_counts_and_its_child_is_replaced(
    run: Run, pool: Pool, broker: MemoryBroker
) -> None:
    run.request.task.backend.mark_as_done(run.request.id, "done")
    run.request.on_success((0, "'done'", 0.1))
    assert (run.state, run.answers, run.request.is_over) == ("SUCCESS", ["acknowledged"], True)
    assert pool.sent == [(PID, SIGTERM), (PID, SIGKILL)]
    assert run.ended(broker) == "complete", "the killed child may not have sent it"


@pytest.mark.parametrize(
    ("error", "state"), [(LookupError(), "error"), (RunCancelled(), "cancelled")]
)
def test_the_main_process_reports_the_error_of_a_child_that_is_replaced(
    run: Run, broker: MemoryBroker, error: Exception, state: str
) -> None:
    try:
        raise error
    except Exception:
        run.request.on_success((1, ExceptionInfo(), 0.1))
    assert run.ended(broker) == state


def test_a_child_that_may_have_begun_another_run_is_not_replaced(app: Celery) -> None:
    pool = Pool(SCHED_STRATEGY_FCFS)
    Run(app, pool).request.on_success((0, "'done'", 0.1))
    assert pool.sent == [(PID, SIGTERM)]


def test_a_terminated_run_is_cancelled_for_its_followers_if_the_backend_fails(
    run: Run, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.request.task.backend, "mark_as_revoked", fail_away)
    with pytest.raises(OSError, match="away"):
        run.fail(Terminated(15))
    assert run.ended(broker) == "cancelled"
    assert run.answers == ["requeued"]  # the broker delivers the message again
