"""Cancelled jobs are marked as revoked by a thread."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.worker import state

from jobcast import ProgressTask
from jobcast.celery import revoked_marks as module
from jobcast.celery.headers import SENDING_HEADER
from jobcast.celery.result_backend import read_states
from jobcast.celery.revoked_marks import Mark, RevokedMarks, WaitingMarks
from jobcast.publishing import runtime
from jobcast.transports.cancellation import Cancellation
from tests.support import TIMEOUT, new_id, wait_for
from tests.unit.celery.deliveries import receive, send


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setenv("JOBCAST_URL", f"memory://{new_id()}")
    monkeypatch.setattr(module, "SPREAD", 0.0)
    monkeypatch.setattr(module, "RETRY_DELAY", 0.001)
    monkeypatch.setattr(module, "MAX_RETRY_DELAY", 0.001)
    runtime.close()
    with Celery(
        "unit", broker=f"memory://{new_id()}", backend="cache+memory://", set_as_current=False
    ) as app:
        app.conf.result_backend_thread_safe = True  # the tests and the thread share the backend
        yield app
    runtime.close()
    state.reset_state()


@pytest.fixture
def marks() -> Iterator[RevokedMarks]:
    marks = RevokedMarks()
    yield marks
    marks.close(TIMEOUT)


def cancelled(job_id: str, **fields: Any) -> Cancellation:
    return Cancellation(job_id=job_id, outcome="cancelled", **fields)


def states_of(app: Celery, job_ids: Sequence[str]) -> set[str]:
    return {str(app.backend.get_state(job_id)) for job_id in job_ids}


class Gate:
    """A backend that does not answer until it is opened."""

    def __init__(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = threading.Event()
        self.is_open = threading.Event()
        read = app.backend.mget

        def mget(keys: Any) -> Any:
            self.asked.set()
            assert self.is_open.wait(TIMEOUT)
            return read(keys)

        monkeypatch.setattr(app.backend, "mget", mget)


@pytest.fixture
def gate(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(app, monkeypatch)
    yield gate
    gate.is_open.set()


class Outage:
    """A backend that fails as often as wanted."""

    def __init__(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures = 0
        self.failed = 0
        store = app.backend.mark_as_revoked

        def mark(task_id: str, *args: Any) -> None:
            if self.failed < self.failures:
                self.failed += 1
                raise OSError("the backend is away")
            store(task_id, *args)

        monkeypatch.setattr(app.backend, "mark_as_revoked", mark)


@pytest.fixture
def outage(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(app, monkeypatch)


def test_all_jobs_are_marked_without_blocking_the_caller(
    app: Celery, marks: RevokedMarks, gate: Gate
) -> None:
    job_ids = [new_id() for _ in range(200)]
    for job_id in job_ids:
        marks.add(app, cancelled(job_id))
    assert gate.asked.wait(TIMEOUT)
    assert states_of(app, job_ids) == {"PENDING"}
    gate.is_open.set()
    wait_for(lambda: states_of(app, job_ids) == {"REVOKED"}, "all marks")


def test_the_end_waits_for_all_marks(app: Celery, marks: RevokedMarks) -> None:
    job_ids = [new_id() for _ in range(200)]
    for job_id in job_ids:
        marks.add(app, cancelled(job_id))
    marks.close(TIMEOUT)
    assert states_of(app, job_ids) == {"REVOKED"}


def test_jobs_are_marked_after_an_end(app: Celery, marks: RevokedMarks) -> None:
    """A process may run a worker after another one."""
    for job_id in (new_id(), new_id()):
        marks.add(app, cancelled(job_id))
        marks.close(TIMEOUT)
        assert states_of(app, [job_id]) == {"REVOKED"}


def test_the_end_does_not_wait_for_a_backend_that_does_not_answer(
    app: Celery, marks: RevokedMarks, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    job_ids = [new_id() for _ in range(30)]
    for job_id in job_ids:
        marks.add(app, cancelled(job_id))
    assert gate.asked.wait(TIMEOUT)
    marks.close(0.01)
    [line] = [record.getMessage() for record in caplog.records]
    assert "that 30 cancelled jobs are revoked, because the worker ends;" in line


def test_a_job_that_the_end_has_dropped_is_not_marked_later(
    app: Celery, marks: RevokedMarks, gate: Gate
) -> None:
    job_ids = [new_id() for _ in range(30)]
    marks.add(app, cancelled(job_ids[0]))
    thread = marks._thread
    assert thread is not None
    assert gate.asked.wait(TIMEOUT)
    for job_id in job_ids[1:]:
        marks.add(app, cancelled(job_id))
    marks.close(0.01)
    gate.is_open.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert states_of(app, job_ids) == {"PENDING"}


@pytest.mark.parametrize("ends", [False, True], ids=["after a burst", "at the end"])
def test_one_warning_sums_up_the_jobs_that_too_many_others_have_pushed_out(
    app: Celery, marks: RevokedMarks, gate: Gate, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, ends: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "MAX_BYTES", 10 * module.MARK_BYTES)
    for _ in range(100):
        marks.add(app, cancelled(new_id()))
    assert gate.asked.wait(TIMEOUT)
    assert caplog.records == []
    if ends:
        marks.close(0.01)
    else:
        gate.is_open.set()
        wait_for(lambda: caplog.records, "a warning")
        marks.close(TIMEOUT)
    first, *others = [record.getMessage() for record in caplog.records]
    assert "that 90 cancelled jobs are revoked, because too many jobs" in first
    assert ["because the worker ends" in line for line in others] == [True] * ends


@pytest.mark.parametrize("failures", [1, 40])
def test_a_failing_backend_is_logged_once_and_no_mark_is_lost(
    app: Celery, marks: RevokedMarks, outage: Outage, failures: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    outage.failures = failures
    job_ids = [new_id() for _ in range(60)]
    for job_id in job_ids:
        marks.add(app, cancelled(job_id))
    marks.close(TIMEOUT)
    assert states_of(app, job_ids) == {"REVOKED"}
    assert outage.failed == failures
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_mark_that_keeps_failing_is_given_up(
    app: Celery, marks: RevokedMarks, outage: Outage, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "MAX_AGE", 0.0)
    outage.failures = 1
    marks.add(app, cancelled(new_id()))
    marks.close(TIMEOUT)
    assert "1 cancelled jobs are revoked, because its result backend" in caplog.text
    assert outage.failed == 1


def test_a_job_whose_mark_always_fails_does_not_hold_up_the_others(
    app: Celery, marks: RevokedMarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, *others = job_ids = [new_id() for _ in range(60)]
    store = app.backend.mark_as_revoked

    def mark(task_id: str, *args: Any) -> None:
        if task_id == wrong:
            raise ValueError("no such id")
        store(task_id, *args)

    monkeypatch.setattr(app.backend, "mark_as_revoked", mark)
    for job_id in job_ids:
        marks.add(app, cancelled(job_id))
    wait_for(lambda: states_of(app, others) == {"REVOKED"}, "the marks of the others")
    marks.close(0)
    assert states_of(app, [wrong]) == {"PENDING"}


def test_a_job_that_this_worker_has_received_again_is_not_marked(
    app: Celery, marks: RevokedMarks, gate: Gate
) -> None:
    @app.task(base=ProgressTask, shared=False)
    def task() -> None: ...

    message = send(task)
    headers = message.headers
    marks.add(app, cancelled(headers["id"], sending=headers[SENDING_HEADER], task=task.name))
    assert gate.asked.wait(TIMEOUT)
    held = receive(task, send(task, task_id=headers["id"]))
    gate.is_open.set()
    marks.close(TIMEOUT)
    assert states_of(app, [held.id]) == {"PENDING"}


@pytest.mark.parametrize("state", ["STARTED", "FAILURE"])
def test_a_job_that_another_worker_begins_while_others_are_marked_keeps_its_state(
    app: Celery, marks: RevokedMarks, gate: Gate, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """One call reads the states of all of them, and each mark takes long."""
    first, *others = job_ids = [new_id() for _ in range(10)]
    marked: list[str] = []
    store = app.backend.mark_as_revoked

    def mark(task_id: str, *args: Any) -> None:
        store(task_id, *args)
        marked.append(task_id)
        if len(marked) == 2:
            monkeypatch.setattr(module, "MAX_STATE_AGE", 0.0)
            for job_id in {*others} - {task_id}:
                app.backend.store_result(job_id, None, state)

    monkeypatch.setattr(app.backend, "mark_as_revoked", mark)
    monkeypatch.setattr(module, "MAX_STATE_AGE", TIMEOUT)
    marks.add(app, cancelled(first))
    assert gate.asked.wait(TIMEOUT)
    for job_id in others:
        marks.add(app, cancelled(job_id))
    gate.is_open.set()
    marks.close(TIMEOUT)
    assert states_of(app, marked) == {"REVOKED"}
    assert len(marked) == 2
    assert states_of(app, [*{*job_ids} - {*marked}]) == {state}


def test_the_states_of_a_fast_batch_are_read_once(
    app: Celery, marks: RevokedMarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STATE_AGE", TIMEOUT)
    reads: list[str] = []  # of one state each

    def read_meta(_: object, job_id: str) -> dict[str, str]:
        reads.append(job_id)
        return {"status": "PENDING"}

    monkeypatch.setattr(module, "read_meta", read_meta)
    job_ids = [new_id() for _ in range(60)]
    for job_id in job_ids:
        marks.add(app, cancelled(job_id))
    marks.close(TIMEOUT)
    assert states_of(app, job_ids) == {"REVOKED"}
    assert reads == []


def test_a_fork_marks_jobs_in_a_thread_of_its_own(
    app: Celery, marks: RevokedMarks, gate: Gate
) -> None:
    fork = multiprocessing.get_context("fork")
    marked = fork.SimpleQueue()

    def work() -> None:
        gate.is_open.set()
        job_id = new_id()
        marks.reset_after_fork()
        marks.add(app, cancelled(job_id))
        marks.close(TIMEOUT)
        marked.put(states_of(app, [job_id]))

    marks.add(app, cancelled(new_id()))
    assert gate.asked.wait(TIMEOUT)
    process = fork.Process(target=work)
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == 0
    assert marked.get() == {"REVOKED"}


def mark_of(job_id: str, message: str = "", added_at: float = 0.0) -> Mark:
    return Mark(None, cancelled(job_id, message=message), added_at)


def test_the_waiting_jobs_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 3 * (module.MARK_BYTES + 10))
    waiting = WaitingMarks()

    def push_out(job_ids: str, message: str = "x" * 10) -> int:
        for job_id in job_ids:
            waiting.add(mark_of(job_id, message))
        return waiting.take_pushed_out()

    assert push_out("abc") == 0
    assert push_out("d") == 1
    assert {mark.job_id for mark in waiting.sample()} == {*"bcd"}
    assert push_out("e", "x" * module.MAX_BYTES) == 3
    assert [mark.job_id for mark in waiting.sample()] == ["e"]
    waiting.done(waiting.sample()[0])
    assert push_out("abc") == 0


def test_a_job_that_is_added_again_stays_until_it_is_marked_again() -> None:
    waiting = WaitingMarks()
    waiting.add(mark_of("a"))
    [first] = waiting.sample()
    waiting.add(mark_of("a"))
    assert len(waiting) == 1
    waiting.done(first)
    [second] = waiting.sample()
    waiting.done(second)
    assert not waiting


def test_workers_take_different_jobs_first() -> None:
    waiting = WaitingMarks()
    for number in range(1000):
        waiting.add(mark_of(str(number)))
    samples = [{mark.job_id for mark in waiting.sample()} for _ in range(2)]
    assert [len(sample) for sample in samples] == [module.BATCH] * 2
    assert samples[0] != samples[1]


def test_old_jobs_are_dropped() -> None:
    waiting = WaitingMarks()
    for number in range(5):
        waiting.add(mark_of(str(number), added_at=float(number)))
    assert waiting.drop_before(3.0) == 3
    assert {mark.job_id for mark in waiting.sample()} == {"3", "4"}


IDS = ("missing", "ended", "begun")


@pytest.fixture(params=["cache+memory://", "file://"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A backend with the states of some tasks, which answers with a mapping or with a list."""
    url = request.param + (str(tmp_path) if request.param == "file://" else "")
    with Celery("unit", backend=url, set_as_current=False) as app:
        app.backend.mark_as_done("ended", None)
        app.backend.mark_as_started("begun")
        yield app.backend


def test_many_states_are_read_at_once(stored: Any) -> None:
    assert read_states(stored, IDS) == {
        "missing": "PENDING", "ended": "SUCCESS", "begun": "STARTED",
    }  # fmt: skip


def test_the_states_that_are_read_at_once_are_not_cached(stored: Any) -> None:
    read_states(stored, IDS)
    stored.store_result("begun", None, "FAILURE")
    assert stored.get_state("begun") == "FAILURE"


def refuse(found: Any) -> Any:
    raise NotImplementedError


#: Answers of backends outside of Celery, from those that a backend of Celery would give.
ANSWERS: Mapping[str, Callable[[Any], Any]] = {
    "other names": lambda found: {f"v1:{key}": value for key, value in found.items()},
    "without those that are missing": lambda found: [*found.values()],
    "no answer": refuse,
}


@pytest.fixture(params=ANSWERS)
def reads_one_by_one(
    request: pytest.FixtureRequest, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, read = ANSWERS[request.param], app.backend.mget
    monkeypatch.setattr(app.backend, "mget", lambda keys: answer(read(keys)))


@pytest.mark.usefixtures("reads_one_by_one")
def test_states_that_cannot_be_read_at_once_are_read_one_by_one(
    app: Celery, marks: RevokedMarks
) -> None:
    app.backend.mark_as_done("ended", None)
    assert read_states(app.backend, IDS) == {}
    for job_id in ("ended", "waiting"):
        marks.add(app, cancelled(job_id))
    marks.close(TIMEOUT)
    assert app.backend.get_state("ended") == "SUCCESS"
    assert app.backend.get_state("waiting") == "REVOKED"


def test_a_state_under_another_id_or_that_cannot_be_decoded_is_missing(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.backend.mark_as_done("ended", None)
    key = app.backend.get_key_for_task("ended")
    value = app.backend.mget([key])[key]
    monkeypatch.setattr(app.backend, "mget", lambda _: [value, value, b"?"])
    assert read_states(app.backend, IDS) == {"ended": "SUCCESS"}


def test_other_backends_read_no_states_at_once() -> None:
    assert read_states(object(), IDS) == {}
