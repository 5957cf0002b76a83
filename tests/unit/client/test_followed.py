"""The events that the Python client delivers to a later follower of a job."""

from __future__ import annotations

from jobcast.client.followed import FollowedJob
from jobcast.events import JobComplete, JobEvent, JobLog, JobStatus, Joined


def seqs_for_new_follower(followed: FollowedJob) -> list[int]:
    """Return the seqs of the events that a new follower receives."""
    queue = followed.attach().queue
    events = [queue.get_nowait() for _ in range(queue.qsize())]
    return [event.seq for event in events if isinstance(event, JobEvent)]


def test_late_lines_after_the_end_do_not_clear_the_cached_run() -> None:
    followed = FollowedJob("a")
    followed.join_request()
    followed.begin(Joined(job_id="a", epoch="e", seq=0, status="pending"))
    followed.receive(JobStatus(job_id="a", seq=1, status="started"))
    followed.receive(JobComplete(job_id="a", seq=2, result=1))
    for seq in (3, 4):
        followed.receive(JobLog(job_id="a", seq=seq, level="info", message="late", attempt=1))
    assert seqs_for_new_follower(followed) == [1, 2, 3, 4]
    assert followed.status == "complete"
    followed.receive(JobStatus(job_id="a", seq=5, status="started"))
    assert seqs_for_new_follower(followed) == [5]
