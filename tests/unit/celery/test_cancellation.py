"""Cancelled runs of ``ProgressTask`` in this process, with the memory transport."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, TaskRevokedError

from jobcast import JobCancelled, ProgressTask, current_job
from jobcast.celery.canvas import mark_last_step
from jobcast.celery.failures import failure_message, reason_of
from jobcast.celery.headers import SENDING_HEADER
from jobcast.events import JobStatus
from jobcast.publishing import runtime
from jobcast.publishing.job import NO_JOB, Job
from jobcast.transports import Origin, Outgoing, Run
from jobcast.transports.base import Snapshot
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.memory import MemoryBroker
from tests.support import TIMEOUT, new_id, wait_for

SENDING = "abcdefabcdef"
Cancel = Callable[[], None]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    url = f"memory://{new_id()}"
    monkeypatch.setenv("JOBCAST_URL", url)
    runtime.close()
    yield MemoryBroker.at(url)
    runtime.close()
    assert current_job() is NO_JOB


@pytest.fixture
def app() -> Celery:
    return Celery("unit", broker="memory://", set_as_current=False)


@pytest.fixture
def cancel(broker: MemoryBroker) -> Cancel:
    """Return a function with which the current job is cancelled."""

    def cancel() -> None:
        job = current_job()
        job.flush()
        assert job.job_id is not None
        broker.cancel(Cancellation(job_id=job.job_id, by="alice", message="enough"))
        job.set_title(new_id())  # an event whose answer says so
        wait_for(lambda: job.cancelled, "answer")

    return cancel


def ended(broker: MemoryBroker, job_id: str) -> Snapshot:
    here = runtime.get_runtime()
    assert here is not None
    here.publisher.flush()
    return broker.snapshot(job_id, None)


def test_a_cancelled_run_is_revoked_in_celery(
    app: Celery, broker: MemoryBroker, cancel: Cancel
) -> None:
    seen: list[Any] = []

    @app.task(base=ProgressTask, bind=True, shared=False)
    def task(self: ProgressTask) -> None:
        cancel()
        try:
            self.log("not published")
        finally:
            seen.append("finally")

    def revoked(request: Any, terminated: bool, expired: bool, **_: Any) -> None:
        seen.append((request.id, terminated, expired))

    signals.task_revoked.connect(revoked)
    job_id = new_id()
    assert task.apply(task_id=job_id).state == "REVOKED"
    snapshot = ended(broker, job_id)
    assert snapshot.state == "cancelled"
    assert '"reason":"cancelled","by":"alice"' in snapshot.events[-1].packet
    assert "not published" not in "".join(event.packet for event in snapshot.events)
    assert seen == ["finally", (job_id, False, False)]


@pytest.mark.parametrize("is_eager", [False, True])
def test_the_result_of_an_eager_run_is_revoked(app: Celery, cancel: Cancel, is_eager: bool) -> None:
    app.conf.task_always_eager = is_eager

    @app.task(base=ProgressTask, bind=True, shared=False)
    def task(self: ProgressTask) -> None:
        cancel()
        self.check_cancelled()

    result = task.apply_async() if is_eager else task.apply()
    assert (result.state, result.ready(), result.successful()) == ("REVOKED", True, False)
    with pytest.raises(TaskRevokedError, match="enough"):
        result.get()


def test_a_task_that_ignores_itself_stays_ignored(app: Celery, broker: MemoryBroker) -> None:
    @app.task(base=ProgressTask, shared=False)
    def task() -> None:
        raise Ignore

    assert task.apply().state == "IGNORED"


def test_a_cancelled_run_is_not_retried(app: Celery, broker: MemoryBroker, cancel: Cancel) -> None:
    runs: list[str] = []

    @app.task(base=ProgressTask, bind=True, shared=False)
    def retries(self: ProgressTask) -> None:
        runs.append("one")
        cancel()
        raise self.retry(countdown=0)

    @app.task(
        base=ProgressTask, bind=True, shared=False, autoretry_for=(LookupError,), retry_backoff=0
    )
    def retries_by_itself(self: ProgressTask) -> None:
        runs.append("two")
        cancel()
        raise LookupError

    for task in (retries, retries_by_itself):
        job_id = new_id()
        task.apply(task_id=job_id)
        assert ended(broker, job_id).state == "cancelled"
    assert runs == ["one", "two"]


@pytest.mark.parametrize("is_shielded", [False, True])
def test_a_cancelled_run_is_not_replaced(
    app: Celery, broker: MemoryBroker, cancel: Cancel, is_shielded: bool
) -> None:
    runs: list[str] = []

    @app.task(base=ProgressTask, shared=False)
    def other() -> None:
        runs.append("other")

    @app.task(base=ProgressTask, bind=True, shared=False)
    def task(self: ProgressTask) -> None:
        runs.append("task")
        with self.shielded() if is_shielded else nullcontext():
            cancel()
            self.replace(other.si())

    job_id = new_id()
    assert task.apply(task_id=job_id).state == "REVOKED"
    assert ended(broker, job_id).state == "cancelled"
    assert runs == ["task"]


def test_a_plain_task_that_replaces_a_cancelled_one_publishes_no_second_end(
    app: Celery, broker: MemoryBroker, cancelled_job: str
) -> None:
    """The store may end the job after the replacement is sent."""

    @app.task(base=ProgressTask, shared=False)
    def task() -> None: ...

    @app.task(shared=False)
    def plain() -> str:
        return "ran"

    signature = plain.si()
    mark_last_step(app, signature, task.name, SENDING)
    before = broker.snapshot(cancelled_job, None)
    assert signature.apply(task_id=cancelled_job).get() == "ran"
    snapshot = ended(broker, cancelled_job)
    assert (snapshot.state, snapshot.seq) == ("cancelled", before.seq)


@pytest.fixture
def confirm_start(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the store answer to the start of a run only after the returned function is called."""
    answers, publish, settle = threading.Event(), broker.publish, Job.settle

    def publish_when_available(*args: Any) -> None:
        assert answers.wait(TIMEOUT)
        publish(*args)

    monkeypatch.setattr(broker, "publish", publish_when_available)
    monkeypatch.setattr(Job, "settle", lambda job: answers.is_set() and settle(job))
    return answers.set


@pytest.fixture
def cancelled_job(broker: MemoryBroker) -> str:
    """Return the id of a job that was cancelled before its run."""
    queued = JobStatus(job_id=new_id(), status="queued")
    broker.publish([Outgoing.of(queued, Origin(run=Run(sending=SENDING)))], "sender")
    answer = broker.cancel(Cancellation(job_id=queued.job_id))
    assert answer.outcome == "cancelled"
    return queued.job_id


@pytest.mark.parametrize("is_cancellable", [True, False])
@pytest.mark.parametrize("ending", ["fails", "retries", "retries by itself", "returns"])
def test_a_run_whose_start_is_confirmed_at_its_end_is_cancelled(
    app: Celery,
    cancelled_job: str,
    confirm_start: Callable[[], None],
    ending: str,
    is_cancellable: bool,
) -> None:
    runs: list[str] = []
    options = {"cancellable": is_cancellable, "autoretry_for": (OSError,)}

    @app.task(base=ProgressTask, bind=True, shared=False, **options)
    def task(self: ProgressTask) -> None:
        runs.append(ending)
        confirm_start()
        if ending == "fails":
            raise LookupError
        if ending == "retries":
            raise self.retry(countdown=0)
        if ending == "retries by itself":
            raise OSError

    revoked: list[str] = []

    def note(request: Any, **_: Any) -> None:
        revoked.append(request.id)

    signals.task_revoked.connect(note)
    result = task.apply(task_id=cancelled_job, headers={SENDING_HEADER: SENDING})
    assert result.state == "REVOKED"
    assert revoked == [cancelled_job]
    assert runs == [ending]


@pytest.mark.parametrize("raised", [Ignore(), Reject("no")])
def test_celery_handles_a_task_that_is_ignored_or_rejected(
    app: Celery, cancelled_job: str, confirm_start: Callable[[], None], raised: Exception
) -> None:
    @app.task(base=ProgressTask, shared=False)
    def task() -> None:
        confirm_start()
        raise raised

    revoked: list[Any] = []

    def note(request: Any, **_: Any) -> None:
        revoked.append(request.id)

    signals.task_revoked.connect(note)
    task.apply(task_id=cancelled_job, headers={SENDING_HEADER: SENDING})
    assert revoked == []


def test_a_result_counts_if_the_task_ignores_the_request(
    app: Celery, broker: MemoryBroker, cancel: Cancel
) -> None:
    @app.task(base=ProgressTask, bind=True, shared=False)
    def task(self: ProgressTask) -> str:
        cancel()
        assert self.cancelled
        return "done"

    job_id = new_id()
    assert task.apply(task_id=job_id).get() == "done"
    assert ended(broker, job_id).state == "complete"


def test_hooks_after_the_body_are_no_cancellation_points(
    app: Celery, broker: MemoryBroker, cancel: Cancel
) -> None:
    lines: list[str] = []

    class Base(ProgressTask):
        abstract = True

        def on_success(self, *_: Any) -> None:
            self.log("from the hook")
            lines.append("hook")

    @app.task(base=Base, bind=True, shared=False)
    def task(self: ProgressTask) -> str:
        cancel()
        return "done"

    job_id = new_id()
    assert task.apply(task_id=job_id).get() == "done"
    assert lines == ["hook"]
    assert "from the hook" in "".join(e.packet for e in ended(broker, job_id).events)


def test_a_cancellation_in_before_start_skips_the_body(
    app: Celery, broker: MemoryBroker, cancel: Cancel
) -> None:
    steps: list[str] = []

    class Base(ProgressTask):
        abstract = True

        def before_start(self, *_: Any) -> None:
            steps.append("before_start")
            cancel()
            self.check_cancelled()

    @app.task(base=Base, shared=False)
    def task() -> None:
        steps.append("body")

    job_id = new_id()
    task.apply(task_id=job_id)
    assert ended(broker, job_id).state == "cancelled"
    assert steps == ["before_start"]


def test_own_call_and_its_super_end_the_run_once(
    app: Celery, broker: MemoryBroker, cancel: Cancel
) -> None:
    caught: list[Exception] = []

    class Base(ProgressTask):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().__call__(*args, **kwargs)
            except Exception as exc:
                caught.append(exc)
                raise

    @app.task(base=Base, bind=True, shared=False)
    def task(self: ProgressTask) -> None:
        cancel()
        self.check_cancelled()

    job_id = new_id()
    assert task.apply(task_id=job_id).state == "REVOKED"
    assert caught == []
    assert ended(broker, job_id).state == "cancelled"


@pytest.mark.parametrize(
    ("options", "error", "message"), [
        ({"cancellable": "no"}, TypeError, "cancellable should be a bool, not 'no'"),
        ({"cancel_grace": "30"}, TypeError, "cancel_grace should be a number of seconds"),
        ({"cancel_grace": True}, TypeError, "cancel_grace should be a number of seconds"),
        ({"cancel_grace": -1}, ValueError, "cancel_grace should be 0 or more seconds"),
        ({"cancel_grace": float("nan")}, ValueError, "cancel_grace should be 0 or more seconds"),
    ],
)  # fmt: skip
def test_invalid_attributes_are_refused_when_the_class_is_created(
    app: Celery, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):

        @app.task(base=ProgressTask, shared=False, lazy=False, **options)
        def task() -> None: ...

    with pytest.raises(error, match=message):
        type("Base", (ProgressTask,), options)


def test_valid_attributes_are_accepted() -> None:
    for options in ({"cancel_grace": 0}, {"cancel_grace": None}, {"cancellable": False}):
        base: Any = type("Base", (ProgressTask,), options)
        assert {name: getattr(base, name) for name in options} == options


def test_a_sender_publishes_that_a_task_cannot_be_cancelled(
    app: Celery, broker: MemoryBroker
) -> None:
    app.conf.broker_url = f"memory://{new_id()}"

    @app.task(base=ProgressTask, shared=False, cancellable=False)
    def task() -> None: ...

    result = task.apply_async()
    assert not ended(broker, result.id).info.cancellable
    answer = broker.cancel(Cancellation(job_id=result.id))
    assert answer.outcome == "not_cancellable"


def test_followers_see_the_message_of_the_request() -> None:
    assert reason_of(JobCancelled("enough", "alice")) == "cancelled"
    assert failure_message(JobCancelled("enough", "alice")) == "enough"
    assert failure_message(JobCancelled("")) == "Cancelled"
