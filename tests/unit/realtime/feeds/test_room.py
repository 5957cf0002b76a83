"""The jobs of a room: versions, removals, and what arrives during a read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobcast.feeds import ALL, JobSummary
from jobcast.realtime.feeds.room import FeedRoom
from jobcast.transports.base import FeedRemoval
from tests.unit.realtime.feeds.summaries import FEED, job


def room_of(*jobs: JobSummary, feed: str = FEED, size: int = 100) -> FeedRoom:
    room = FeedRoom(feed, size)
    room.begin_read()
    room.finish_read(jobs)
    return room


def content(room: FeedRoom) -> dict[str, int]:
    return {entry.job.job_id: entry.job.seq for entry in room.listing}


def removal(number: int, seq: int, epoch: str = "a") -> FeedRemoval:
    return FeedRemoval(f"job-{number}", epoch, seq)


def test_newer_version_replaces_an_older_one_only() -> None:
    room = room_of(job(1, seq=5))
    room.change(job(1, seq=4))
    assert content(room) == {"job-1": 5}
    room.change(job(1, seq=6))
    assert content(room) == {"job-1": 6}
    room.change(job(1, seq=1, epoch="b"))
    assert content(room) == {"job-1": 1}
    room.change(job(1, seq=99))
    assert content(room) == {"job-1": 1}


def test_removed_job_is_not_revived_by_an_older_version() -> None:
    room = room_of(job(1, seq=5))
    room.change(removal(1, 4))
    assert content(room) == {"job-1": 5}
    room.change(removal(1, 5))
    room.change(job(1, seq=5))
    assert content(room) == {}
    room.change(job(1, seq=6))
    assert content(room) == {"job-1": 6}


def test_job_of_another_owner_leaves_the_feed_and_never_enters_it() -> None:
    room = room_of(job(1, seq=5), job(2, owner="bob"))
    assert content(room) == {"job-1": 5}
    room.change(job(3, owner="bob"))
    room.change(job(1, seq=6, owner="bob"))
    room.change(job(1, seq=5))
    assert content(room) == {}


def test_feed_of_a_tag_has_jobs_with_this_tag_only() -> None:
    room = room_of(job(1, tags=("x", "y")), job(2, tags=("y",)), feed="tag:x")
    room.change(job(3, tags=("z", "x")))
    assert content(room) == {"job-1": 1, "job-3": 1}


def test_feed_of_all_jobs_has_jobs_without_an_owner() -> None:
    room = room_of(job(1, owner="bob"), job(2, owner="alice"), feed=ALL)
    assert len(room.listing) == 2


def test_changes_during_a_read_win_over_its_older_result() -> None:
    room = room_of(job(1, seq=1), job(2, seq=1), job(3, seq=1), job(4, seq=1))
    room.begin_read()
    room.change(job(1, seq=7))
    room.change(removal(2, 7))
    room.change(job(5, seq=7))
    room.change(job(6, seq=3))
    room.finish_read([job(1, seq=2), job(2, seq=2), job(4, seq=2), job(6, seq=9)])
    assert content(room) == {"job-1": 7, "job-4": 2, "job-5": 7, "job-6": 9}


def test_read_is_the_truth_although_a_record_has_gone_back() -> None:
    room = room_of(job(1, seq=9))
    room.begin_read()
    room.finish_read([job(1, seq=2)])
    assert content(room) == {"job-1": 2}


def test_job_that_a_read_returns_again_accepts_changes_again() -> None:
    room = room_of(job(1, seq=5))
    room.change(removal(1, 9))
    room.begin_read()
    room.finish_read([job(1, seq=3)])
    room.change(job(1, seq=4))
    assert content(room) == {"job-1": 4}


def test_room_has_a_bound_although_removals_are_lost() -> None:
    room = room_of(size=10)
    for number in range(100):
        room.change(job(number))
    assert set(content(room)) == {f"job-{number}" for number in range(80, 100)}


changes = st.lists(
    st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(["a", "b"]), st.integers(1, 5))
)


@given(changes, st.randoms())
def test_order_of_arrival_does_not_matter(
    steps: list[tuple[int, bool, str, int]], random: object
) -> None:
    """Each position of a job has one version, as in a store."""
    unique = {(number, epoch, seq): gone for number, gone, epoch, seq in steps}
    shuffled = list(unique.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    room = room_of()
    for (number, epoch, seq), gone in shuffled:
        room.change(removal(number, seq, epoch) if gone else job(number, seq, epoch=epoch))
    expected = {}
    for (number, _, seq), gone in sorted(unique.items()):
        expected[f"job-{number}"] = None if gone else seq
    assert content(room) == {job_id: seq for job_id, seq in expected.items() if seq is not None}
