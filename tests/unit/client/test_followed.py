"""The events that the Python client delivers to a later follower of a job."""

from __future__ import annotations

from jobcast.client.followed import FollowedJob, Follower
from jobcast.errors import ClientError
from jobcast.events import JobComplete, JobEvent, JobGap, JobLog, JobStatus, Joined


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


def items_for_new_follower(followed: FollowedJob) -> list[tuple[str, int]]:
    """Return the name, and the seq or the end of the gap, of each item for a new follower."""
    return received(followed.attach())


def received(follower: Follower) -> list[tuple[str, int]]:
    """Take the items of a follower from its queue."""
    items = [follower.queue.get_nowait() for _ in range(follower.queue.qsize())]
    return [
        (item.name, item.before if isinstance(item, JobGap) else item.seq)
        for item in items
        if not isinstance(item, ClientError)
    ]


def followed_with_gap() -> tuple[FollowedJob, Follower]:
    """Return a job whose log was trimmed between its ``started`` and line 9."""
    followed = FollowedJob("a")
    follower = followed.attach()
    followed.join_request()
    followed.begin(Joined(job_id="a", epoch="e", seq=9, status="started", complete_from=9))
    followed.receive(JobStatus(job_id="a", seq=1, status="started"))
    followed.skip(JobGap(job_id="a", after=0, before=9))
    followed.receive(JobLog(job_id="a", seq=9, level="info", message="line"))
    return followed, follower


TRIMMED = [("job_status", 1), ("job_gap", 9), ("job_log", 9)]


def test_gap_is_delivered_in_place_to_present_and_later_followers() -> None:
    followed, follower = followed_with_gap()
    assert received(follower) == TRIMMED
    assert items_for_new_follower(followed) == TRIMMED


def test_gap_does_not_move_the_cursor() -> None:
    followed, _ = followed_with_gap()
    followed.skip(JobGap(job_id="a", after=9, before=50))
    assert followed.join_request()["after"] == {"epoch": "e", "seq": 9}


def test_gap_after_a_reconnect_follows_the_seen_events() -> None:
    followed, follower = followed_with_gap()
    received(follower)
    followed.join_request()
    followed.begin(Joined(job_id="a", epoch="e", seq=30, status="started", complete_from=25))
    followed.receive(JobStatus(job_id="a", seq=20, status="retrying"))
    followed.skip(JobGap(job_id="a", after=9, before=25))
    followed.receive(JobLog(job_id="a", seq=30, level="info", message="line"))
    later = [("job_status", 20), ("job_gap", 25), ("job_log", 30)]
    assert received(follower) == later
    assert items_for_new_follower(followed) == [*TRIMMED, *later]


def test_replay_for_a_later_follower_repeats_no_gap() -> None:
    followed, follower = followed_with_gap()
    received(follower)
    followed.join_request()
    followed.begin(Joined(job_id="a", epoch="e", seq=9, status="started", complete_from=9))
    followed.receive(JobStatus(job_id="a", seq=1, status="started"))
    followed.skip(JobGap(job_id="a", after=0, before=9))
    followed.receive(JobLog(job_id="a", seq=9, level="info", message="line"))
    assert received(follower) == []
    assert items_for_new_follower(followed) == TRIMMED


def test_gap_of_a_replay_begins_after_the_events_that_a_follower_has() -> None:
    followed, follower = followed_with_gap()
    received(follower)
    followed.join_request()
    followed.begin(Joined(job_id="a", epoch="e", seq=60, status="started", complete_from=50))
    followed.skip(JobGap(job_id="a", after=0, before=50))
    gap = follower.queue.get_nowait()
    assert gap == JobGap(job_id="a", after=9, before=50)


def test_new_record_clears_the_gaps_of_the_previous_one() -> None:
    followed, follower = followed_with_gap()
    received(follower)
    followed.begin(Joined(job_id="a", epoch="f", seq=1, status="started"))
    followed.receive(JobStatus(job_id="a", seq=1, status="started"))
    assert received(follower) == [("job_status", 1)]
    assert items_for_new_follower(followed) == [("job_status", 1)]


def test_unknown_status_is_the_status_of_the_job() -> None:
    followed, _ = followed_with_gap()
    followed.receive(JobStatus(job_id="a", seq=10, status="cancelling"))
    assert followed.status == "cancelling"


def test_follower_that_attaches_during_a_replay_receives_the_gap_once() -> None:
    followed, _ = followed_with_gap()
    followed.join_request()
    followed.begin(Joined(job_id="a", epoch="e", seq=9, status="started", complete_from=9))
    follower = followed.attach()
    followed.skip(JobGap(job_id="a", after=0, before=9))
    assert received(follower) == TRIMMED
