"""The numbers with which a receiver detects a missing event of a job."""

from __future__ import annotations

import pytest

from jobcast.events import JobComplete, JobLog
from jobcast.transports import Outgoing
from jobcast.transports.amqp.latest_numbers import LatestNumbers


def log(job_id: str, number: int) -> Outgoing:
    return Outgoing.of(JobLog(job_id=job_id, level="info", message="line"), number=number)


def test_each_event_has_the_number_of_its_jobs_previous_event() -> None:
    latest = LatestNumbers()
    batch = latest.chain([log("a", 1), log("b", 2), log("a", 3)])
    assert [outgoing.previous for outgoing in batch] == [0, 0, 1]
    latest.add(batch)
    assert [outgoing.previous for outgoing in latest.chain([log("b", 4), log("a", 5)])] == [2, 3]


def test_unpublished_batch_is_chained_with_the_same_numbers() -> None:
    latest = LatestNumbers()
    latest.add(latest.chain([log("a", 1)]))
    batch = [log("a", 2), log("a", 3)]
    assert latest.chain(batch) == latest.chain(batch)


def test_number_of_tracked_jobs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcast.transports.amqp.latest_numbers.MAX_JOBS", 2)
    latest = LatestNumbers()
    latest.add([log("a", 1), log("b", 2), log("a", 3), log("c", 4)])
    chained = latest.chain([log("a", 5), log("b", 6), log("c", 7)])
    assert [outgoing.previous for outgoing in chained] == [3, 0, 4]


def test_ended_jobs_are_not_tracked() -> None:
    latest = LatestNumbers()
    latest.add([log("a", 1), Outgoing.of(JobComplete(job_id="a", result=None), number=2)])
    [again] = latest.chain([log("a", 3)])
    assert again.previous == 0
