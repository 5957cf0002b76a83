"""When the summaries of jobs are written to feeds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from jobcast.events import JobComplete, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.transports import Outgoing
from jobcast.transports.dirty_jobs import DirtyJobs, changes_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dirty(clock: Clock) -> DirtyJobs:
    return DirtyJobs(clock, max_dirty=3)


def progress(percentage: float) -> JobProgress:
    return JobProgress(job_id="7", percentage=percentage)


def mark(dirty: DirtyJobs, *events: JobEvent) -> Sequence[str]:
    dirty.mark(changes_of(Outgoing.of(event) for event in events))
    return [*dirty.take()]


def test_progress_is_written_at_most_once_a_second(dirty: DirtyJobs, clock: Clock) -> None:
    assert mark(dirty, progress(1)) == ["7"]
    assert mark(dirty, progress(2), progress(3)) == []
    assert dirty.due_in == 1
    clock.now += 0.75
    assert mark(dirty, progress(4)) == []
    clock.now += 0.25
    assert [*dirty.take()] == ["7"]
    assert dirty.take() == {}
    assert dirty.due_in is None


def test_statuses_and_endings_are_written_at_once(dirty: DirtyJobs) -> None:
    assert mark(dirty, JobStatus(job_id="7", status="started")) == ["7"]
    assert mark(dirty, progress(2)) == []
    assert mark(dirty, JobComplete(job_id="7", result=1)) == ["7"]
    assert (dirty.take(), len(dirty)) == ({}, 0)


def test_log_lines_change_no_feed(dirty: DirtyJobs) -> None:
    assert mark(dirty, JobLog(job_id="7", level="info", message="x")) == []
    assert len(dirty) == 0


def test_too_many_dirty_jobs_drop_the_oldest_and_warn_once(
    dirty: DirtyJobs, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        dirty.mark({str(number): True})
    assert [*dirty.take()] == ["3", "4", "5"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_failed_summary_is_due_after_the_delay(dirty: DirtyJobs, clock: Clock) -> None:
    dirty.postpone("7", 2)
    assert dirty.take() == {}
    assert dirty.due_in == 2
    clock.now += 2
    assert dirty.take() == {"7": True}


def test_all_dirty_jobs_can_be_taken_before_they_are_due(dirty: DirtyJobs) -> None:
    mark(dirty, progress(1))
    assert mark(dirty, progress(2)) == []
    assert dirty.take_all() == ["7"]
    assert dirty.due_in is None


def test_progress_of_several_jobs_is_due_at_the_same_time(dirty: DirtyJobs, clock: Clock) -> None:
    due = []
    for number in range(3):
        clock.now += 0.125
        dirty.mark({str(number): False})
        assert dirty.due_in is not None
        due.append(clock.now + dirty.due_in)
    assert due == [100.5] * 3
    clock.now = 100.53
    assert [*dirty.take()] == ["0", "1", "2"]
    dirty.mark({"0": False})
    assert dirty.due_in == pytest.approx(101.5 - 100.53)


def test_replaced_entries_of_the_queue_are_bounded(dirty: DirtyJobs) -> None:
    for _ in range(100):
        dirty.postpone("7", 30)
        dirty.mark({"7": True})
        assert dirty.take() == {"7": True}
    assert len(dirty._queue) <= 2 * 3
    dirty.postpone("8", 0)
    assert dirty.take() == {"8": True}
