"""Cancellation points, shields and callbacks of a run, with a publisher that records its events."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from contextvars import copy_context
from datetime import timedelta
from threading import Thread
from typing import Any

import pytest

from jobcast import JobCancelled, current_job, open_job
from jobcast.events import JobError, JobInfo, JobLog, JobProgress, now
from jobcast.publishing import cancellation, runtime
from jobcast.publishing.cancellation import KnownRequests, active_runs, find_cancelled, learn
from jobcast.publishing.job import NO_JOB, Job
from jobcast.transports import Origin, Run
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.memory import MemoryBroker
from tests.support import new_id, wait_for
from tests.unit.publishing.test_job import Kept

POINTS: dict[str, Callable[[Job], object]] = {
    "progress": lambda job: job.progress(50),
    "log": lambda job: job.log("a line"),
    "track": lambda job: next(iter(job.track("ab"))),
    "stage": lambda job: job.stage("one").__enter__(),
    "check_cancelled": lambda job: job.check_cancelled(),
}


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def job(kept: Kept) -> Iterator[Job]:
    job = Job(kept, new_id())
    job.become_current()
    with job.body():
        yield job
    job.restore_outer()


def cancel(job: Job, **options: Any) -> None:
    run = job.origin.run
    learn(Cancellation(job_id=job.job_id, sending=run.sending, by="alice", **options))


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
def test_a_cancellation_point_raises_and_publishes_nothing(
    job: Job, kept: Kept, point: Callable[[Job], object]
) -> None:
    point(job)
    before = len(kept.events)
    assert not job.cancelled
    cancel(job, message="too slow")
    assert job.cancelled
    for _ in range(2):
        with pytest.raises(JobCancelled, match="too slow") as raised:
            point(job)
        assert raised.value.by == "alice"
    assert len(kept.events) == before


def test_a_tracked_loop_ends_with_its_next_item(job: Job) -> None:
    seen = []
    with pytest.raises(JobCancelled):
        for item in job.track("abc"):
            seen.append(item)
            cancel(job)
    assert seen == ["a"]


def test_an_interrupted_stage_leaves_the_outer_stage_current(job: Job, kept: Kept) -> None:
    cancel(job)
    with pytest.raises(JobCancelled), job.stage("inner"):
        raise AssertionError
    with suppress(JobCancelled):
        try:
            job.check_cancelled()
        finally:
            job.progress(10)
    assert isinstance(kept.events[-1], JobProgress)
    assert kept.progress == [{"percentage": 10}]


def test_a_point_publishes_while_the_run_ends(job: Job, kept: Kept) -> None:
    cancel(job)
    with pytest.raises(JobCancelled):
        try:
            job.progress(10)
        except JobCancelled:
            job.log("in except")
            with suppress(ValueError):
                int("no number")
            job.log("after another exception")
            raise
        finally:
            job.progress(20)
            job.log("in finally")
    lines = [event.message for event in kept.events if isinstance(event, JobLog)]
    assert lines == ["in except", "after another exception", "in finally"]


def test_check_cancelled_raises_while_the_run_ends(job: Job) -> None:
    cancel(job)
    with pytest.raises(JobCancelled):
        try:
            job.progress(10)
        except JobCancelled:
            job.check_cancelled()
            raise AssertionError from None


def test_a_swallowed_cancellation_raises_again(job: Job) -> None:
    cancel(job)
    for _ in range(3):
        with suppress(JobCancelled):
            job.log("a line")
            raise AssertionError


def test_an_exception_from_before_the_run_does_not_count(kept: Kept) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        job = Job(kept, new_id())
        job.become_current()
        with job.body():
            cancel(job)
            with pytest.raises(JobCancelled):
                job.log("a line")
        job.restore_outer()


def test_the_outermost_shield_raises_at_its_end(job: Job, kept: Kept) -> None:
    reached = []
    with pytest.raises(JobCancelled):
        with job.shielded():
            with job.shielded():
                cancel(job)
                job.check_cancelled()
                job.log("shielded")
            reached.append("between")
            job.progress(10)
        reached.append("after")
    assert reached == ["between"]
    assert len(kept.events) == 2


def test_a_shield_lets_other_exceptions_pass(job: Job) -> None:
    with pytest.raises(LookupError), job.shielded():
        cancel(job)
        raise LookupError


def test_callbacks_are_called_once(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    called: list[str] = []

    def fails() -> None:
        raise RuntimeError("the callback")

    job.on_cancel(lambda: called.append("before"))
    job.on_cancel(fails)
    job.on_cancel(sys.exit)
    job.on_cancel(lambda: job.log("from a callback"))
    cancel(job)
    cancel(job)
    job.on_cancel(lambda: called.append("after"))
    assert called == ["before", "after"]
    assert [record.exc_text is not None for record in caplog.records] == [True, True]
    assert "a callback of on_cancel failed" in caplog.text


def test_every_thread_of_the_job_is_interrupted(job: Job) -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            current_job().progress(10)
        except JobCancelled as exc:
            raised.append(exc)

    cancel(job)
    thread = Thread(target=copy_context().run, args=(work,))
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_captured_log_lines_are_no_cancellation_points(job: Job, kept: Kept) -> None:
    cancel(job)
    job.publish_log("from a library", logging.WARNING)
    assert isinstance(kept.events[-1], JobLog)


def test_other_jobs_and_sendings_are_not_affected(job: Job) -> None:
    learn(Cancellation(job_id=job.job_id, sending="another"))
    learn(Cancellation(job_id=new_id()))
    assert not job.cancelled


@pytest.mark.parametrize("outcome", ["kept", "withdrawn"])
def test_requests_for_later_messages_do_not_interrupt_a_run(job: Job, outcome: Any) -> None:
    learn(Cancellation(job_id=job.job_id, sending=job.origin.run.sending, outcome=outcome))
    assert not job.cancelled


@pytest.mark.parametrize(
    ("options", "is_cancelled"), [
        ({}, True),
        ({"sending": "another"}, False),
        ({"requested_at": now() - timedelta(days=2)}, False),
        ({"outcome": None}, False),
        ({"outcome": "already_ended"}, False),
    ], ids=["covered", "other sending", "expired", "not accepted yet", "ended"],
)  # fmt: skip
def test_a_request_that_precedes_the_start_cancels_the_run(
    kept: Kept, options: dict[str, Any], is_cancelled: bool
) -> None:
    """The run has waited for a free thread, and the store may not answer when it begins."""
    job = Job(kept, new_id(), origin=Origin(run=Run("first", 1, "delivery")))
    defaults = {"job_id": job.job_id, "sending": "first", "outcome": "cancelled"}
    learn(Cancellation(**{**defaults, **options}))
    job.become_current()
    assert job.cancelled == is_cancelled
    with pytest.raises(JobCancelled) if is_cancelled else nullcontext(), job.body():
        assert not is_cancelled
    job.restore_outer()


def test_the_body_of_a_job_that_cannot_be_cancelled_is_not_interrupted(job: Job) -> None:
    """RabbitMQ's store may refuse a request that the worker has received."""
    called: list[str] = []
    job.info = JobInfo(cancellable=False)
    job.is_start_confirmed = True
    job.on_cancel(lambda: called.append("callback"))
    cancel(job)
    for point in POINTS.values():
        point(job)
    job.confirm_start()
    assert (job.cancelled, called) == (False, [])


def test_a_request_that_ended_the_job_before_its_start_skips_any_body(kept: Kept) -> None:
    job = Job(kept, new_id())
    job.info = JobInfo(cancellable=False)
    job.become_current()
    cancel(job)
    with pytest.raises(JobCancelled), job.body():
        raise AssertionError
    job.restore_outer()


def test_the_known_requests_are_bounded(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "MAX_KEPT", 3)
    known = KnownRequests()
    jobs = [Job(kept, new_id()) for _ in range(4)]
    for job in [*jobs, jobs[1]]:
        known.add(Cancellation(job_id=job.job_id))
    assert [known.find(job.job_id, job.origin.run) is not None for job in jobs] == [
        False,
        True,
        True,
        True,
    ]


def test_no_point_raises_outside_of_the_body(kept: Kept) -> None:
    job = Job(kept, new_id())
    job.become_current()
    cancel(job)
    for point in POINTS.values():
        point(job)
    with pytest.raises(JobCancelled), job.body():
        raise AssertionError
    job.restore_outer()
    assert job not in active_runs


async def succeed() -> str:
    return "done"


def test_a_coroutine_gets_its_own_cancellation(job: Job) -> None:
    steps: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(cancel, job)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            steps.append("cancelled")
            job.log("cleaning up")
            raise

    assert job.run_async(succeed()) == "done"
    with pytest.raises(JobCancelled):
        job.run_async(work())
    assert steps == ["cancelled"]
    with pytest.raises(JobCancelled):
        job.run_async(succeed())


def test_a_task_group_is_cancelled_by_a_point_in_it(job: Job) -> None:
    async def talk() -> None:
        cancel(job)
        job.log("a line")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(talk())
            group.create_task(asyncio.sleep(60))

    with pytest.raises(JobCancelled):
        job.run_async(work())
    with pytest.raises(BaseExceptionGroup) as raised:
        asyncio.run(work())
    assert isinstance(find_cancelled(raised.value), JobCancelled)


def test_a_shield_in_a_coroutine_holds_the_cancellation_back(job: Job) -> None:
    steps: list[str] = []

    async def work() -> None:
        with job.shielded():
            cancel(job)
            await asyncio.sleep(0.01)
            steps.append("saved")
        steps.append("went on")

    with pytest.raises(JobCancelled):
        job.run_async(work())
    assert steps == ["saved"]


def test_other_errors_of_a_coroutine_pass(job: Job) -> None:
    async def work() -> None:
        raise LookupError

    async def gives_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(LookupError):
        job.run_async(work())
    with pytest.raises(asyncio.CancelledError):
        job.run_async(gives_up())


def test_everything_works_outside_of_a_job() -> None:
    assert not NO_JOB.cancelled
    NO_JOB.check_cancelled()
    NO_JOB.on_cancel(lambda: None)
    with NO_JOB.shielded():
        pass
    assert NO_JOB.run_async(succeed()) == "done"


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBroker]:
    url = f"memory://{new_id()}"
    monkeypatch.setenv("JOBCAST_URL", url)
    runtime.close()
    yield MemoryBroker.at(url)
    runtime.close()


def test_an_opened_job_ends_as_cancelled(broker: MemoryBroker) -> None:
    job_id = new_id()
    with pytest.raises(JobCancelled, match="enough"):
        with open_job(job_id, owner="alice") as job:
            job.flush()
            answer = broker.cancel(Cancellation(job_id=job_id, by="alice", message="enough"))
            assert answer.outcome == "requested"
            wait_for(lambda: job.cancelled, "notice on the control channel")
            job.log("never published")
    assert broker.snapshot(job_id, None).state == "cancelled"
    assert '"by":"alice"' in broker.snapshot(job_id, None).events[-1].packet


def test_a_job_can_cancel_itself(broker: MemoryBroker) -> None:
    job_id = new_id()
    with pytest.raises(JobCancelled), open_job(job_id):
        raise JobCancelled
    snapshot = broker.snapshot(job_id, None)
    assert snapshot.state == "cancelled"
    assert JobError.name in snapshot.events[-1].packet
