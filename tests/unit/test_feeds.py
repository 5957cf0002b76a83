"""The order of feeds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobcast.feeds import JobSummary, newest_first

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def test_feeds_have_the_newest_job_first_and_then_the_order_of_ids() -> None:
    jobs = [
        JobSummary(
            job_id=job_id,
            epoch="e",
            seq=1,
            status="queued",
            created_at=BEGAN + timedelta(seconds=seconds),
        )
        for job_id, seconds in (("c", 1), ("a", 2), ("b", 1), ("d", 3))
    ]
    assert [job.job_id for job in newest_first(jobs)] == ["d", "a", "b", "c"]
