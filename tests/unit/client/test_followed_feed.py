"""The list of a feed, and the changes that its readers receive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from jobcast.client.feed_request import feed_request
from jobcast.client.followed_feed import FeedReader, FollowedFeed
from jobcast.errors import FeedRefused
from jobcast.feeds import FeedGone, FeedJob, FeedSnapshot, JobSummary

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def job(job_id: str, *, age: float = 0, seq: int = 1, **fields: Any) -> JobSummary:
    """Return the summary of a job that was created ``age`` seconds before noon."""
    values = {"status": "started", **fields}
    created_at = NOON - timedelta(seconds=age)
    return JobSummary(job_id=job_id, epoch="e", seq=seq, created_at=created_at, **values)


def followed(limit: int = 100) -> FollowedFeed:
    request = feed_request(
        "mine", status=None, tag=None, task=None, owner=None, since=None, limit=limit
    )
    return FollowedFeed(request)


def page(feed: FollowedFeed, *jobs: JobSummary, **fields: Any) -> None:
    feed.receive(FeedSnapshot(feed="mine", jobs=jobs, **fields))


def snapshot(feed: FollowedFeed, *jobs: JobSummary, **fields: Any) -> None:
    page(feed, *jobs, reset=True, last=True, **fields)


def upsert(feed: FollowedFeed, changed: JobSummary) -> None:
    feed.receive(FeedJob(feed="mine", **structs.asdict(changed)))


def remove(feed: FollowedFeed, job_id: str) -> None:
    feed.receive(FeedGone(feed="mine", job_id=job_id))


def ids(feed: FollowedFeed) -> list[str]:
    return [job.job_id for job in feed.jobs]


def reader_of(feed: FollowedFeed) -> FeedReader:
    """Return a reader that knows the list as it is now."""
    reader = feed.attach(lambda: None)
    reader.skip_all()
    return reader


def taken(reader: FeedReader) -> list[tuple[str, int]]:
    """Take all changes. Returns the job and the seq of each; the seq of a removal is 0."""
    items = []
    while (item := reader.take()) is not None:
        items.append((item.job_id, 0 if isinstance(item, FeedGone) else item.seq))
    return items


def test_snapshot_appears_when_its_last_page_has_arrived() -> None:
    feed = followed()
    page(feed, job("a", age=1), reset=True)
    assert (ids(feed), feed.has_snapshot) == ([], False)
    page(feed, job("b", age=2), last=True, cursor="c")
    assert (ids(feed), feed.has_snapshot, feed.has_more) == (["a", "b"], True, True)


def test_jobs_are_sorted_by_creation_and_then_by_id() -> None:
    feed = followed()
    snapshot(feed, job("b", age=1), job("c"), job("a", age=1))
    assert ids(feed) == ["c", "a", "b"]
    upsert(feed, job("d", age=-1))
    assert ids(feed) == ["d", "c", "a", "b"]


def test_reader_receives_changes_after_the_list_that_it_knows() -> None:
    feed = followed()
    snapshot(feed, job("a"), job("b"))
    reader = reader_of(feed)
    upsert(feed, job("a", seq=2))
    upsert(feed, job("c"))
    remove(feed, "b")
    assert taken(reader) == [("a", 2), ("c", 1), ("b", 0)]
    assert taken(reader) == []
    assert ids(feed) == ["a", "c"]


def test_change_yields_the_summary_without_the_fields_of_the_message() -> None:
    feed = followed()
    snapshot(feed)
    reader = reader_of(feed)
    changed = job("a", title="March", tags=("x",), percentage=40.0, message="reading")
    upsert(feed, changed)
    assert reader.take() == changed
    assert type(feed.jobs[0]) is JobSummary


def test_slow_reader_receives_the_latest_change_of_each_job() -> None:
    feed = followed()
    snapshot(feed, job("a"))
    reader = reader_of(feed)
    for seq in range(2, 1000):
        upsert(feed, job("a", seq=seq))
        upsert(feed, job("b", seq=seq))
    assert taken(reader) == [("a", 999), ("b", 999)]


def test_job_that_came_and_went_between_two_reads_is_no_change() -> None:
    feed = followed()
    snapshot(feed)
    reader = reader_of(feed)
    for number in range(100):
        upsert(feed, job(str(number)))
        remove(feed, str(number))
    assert reader._pending == {}
    assert taken(reader) == []


def test_job_that_left_and_came_back_between_two_reads_is_one_change() -> None:
    feed = followed()
    snapshot(feed, job("a"))
    reader = reader_of(feed)
    remove(feed, "a")
    upsert(feed, job("a", seq=7))
    assert taken(reader) == [("a", 7)]
    remove(feed, "a")
    assert taken(reader) == [("a", 0)]


def test_another_snapshot_yields_only_the_differences() -> None:
    feed = followed()
    snapshot(feed, job("a"), job("b"), job("c"))
    reader = reader_of(feed)
    page(feed, job("a"), reset=True)
    assert ids(feed) == ["a", "b", "c"]  # the former list stays until the new one is complete
    page(feed, job("b", seq=2), job("d"), last=True)
    assert sorted(taken(reader)) == [("b", 2), ("c", 0), ("d", 1)]
    assert ids(feed) == ["a", "b", "d"]


def test_changes_between_the_pages_of_a_snapshot_are_part_of_it() -> None:
    feed = followed()
    page(feed, job("a"), job("b"), reset=True)
    upsert(feed, job("a", seq=2))
    remove(feed, "b")
    page(feed, job("c"), last=True)
    assert ids(feed) == ["a", "c"]
    assert feed.jobs[0].seq == 2


def test_snapshot_that_starts_over_replaces_an_incomplete_one() -> None:
    feed = followed()
    page(feed, job("a"), reset=True)
    snapshot(feed, job("b"))
    assert ids(feed) == ["b"]


def test_request_after_a_reconnect_covers_all_jobs_of_the_list() -> None:
    feed = followed(limit=1)
    assert feed.join_request() == {"feed": "mine", "limit": 1}
    snapshot(feed, job("a"))
    upsert(feed, job("b"))
    assert feed.join_request() == {"feed": "mine", "limit": 2}


def test_list_drops_its_oldest_job_beyond_the_limit_of_a_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobcast.client.followed_feed.MAX_FEED_LIMIT", 2)
    feed = followed(limit=2)
    snapshot(feed, job("a", age=2), job("b", age=1))
    reader = reader_of(feed)
    upsert(feed, job("c"))
    assert (ids(feed), feed.has_more) == (["c", "b"], True)
    assert taken(reader) == [("c", 1), ("a", 0)]
    upsert(feed, job("a", age=2, seq=5))
    assert taken(reader) == []


def test_total_follows_the_changes_of_the_list() -> None:
    feed = followed()
    assert feed.total is None
    feed.accept(7)
    snapshot(feed, job("a"), job("b"), cursor="c")
    assert feed.total == 7
    upsert(feed, job("a", seq=2))
    assert feed.total == 7
    upsert(feed, job("c"))
    assert feed.total == 8
    remove(feed, "a")
    remove(feed, "unknown")
    assert feed.total == 7
    snapshot(feed, job("a"))
    assert feed.total == 1


def test_older_jobs_are_needed_when_half_of_the_list_has_left() -> None:
    feed = followed(limit=4)
    snapshot(feed, *(job(name) for name in "abcd"), cursor="c")
    remove(feed, "a")
    assert not feed.needs_older_jobs
    remove(feed, "b")
    assert feed.needs_older_jobs
    feed.join_request()
    assert not feed.needs_older_jobs  # the request is on its way
    snapshot(feed, *(job(name) for name in "cd"))
    assert not feed.needs_older_jobs  # there are none


def test_reader_that_wants_more_gets_a_list_that_is_longer_by_the_limit() -> None:
    feed = followed(limit=2)
    snapshot(feed, job("a"), job("b", age=1), cursor="c")
    reader = reader_of(feed)
    feed.want_more()
    feed.want_more()  # without effect while jobs are on their way
    assert (feed.is_loading, feed.needs_older_jobs) == (True, True)
    assert feed.join_request()["limit"] == 4
    page(feed, job("a"), job("b", age=1), reset=True)
    assert (feed.is_loading, feed.needs_older_jobs) == (True, False)
    page(feed, job("c", age=2), job("d", age=3), last=True, cursor="e")
    assert (feed.is_loading, feed.needs_older_jobs, ids(feed)) == (False, False, list("abcd"))
    assert taken(reader) == [("c", 1), ("d", 1)]
    remove(feed, "a")
    remove(feed, "b")
    assert feed.needs_older_jobs  # half of the longer list has left


def test_reader_that_wants_more_during_a_join_causes_another_one() -> None:
    feed = followed(limit=1)
    snapshot(feed, job("a"), cursor="b")
    feed.join_request()
    feed.want_more()
    snapshot(feed, job("a"), cursor="b")
    assert (feed.is_loading, feed.needs_older_jobs) == (True, True)
    feed.join_request()
    snapshot(feed, job("a"), job("b", age=1))
    feed.want_more()
    assert (feed.is_loading, feed.has_more) == (False, False)


def test_list_of_the_largest_size_loads_no_older_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcast.client.followed_feed.MAX_FEED_LIMIT", 3)
    feed = followed(limit=2)
    snapshot(feed, job("a"), job("b"), cursor="c")
    feed.want_more()
    assert feed.join_request()["limit"] == 3
    snapshot(feed, job("a"), job("b"), job("c"), cursor="d")
    feed.want_more()
    assert (feed.is_loading, feed.has_more) == (False, True)


def test_refusal_follows_the_changes_before_it() -> None:
    feed = followed()
    snapshot(feed)
    reader = reader_of(feed)
    upsert(feed, job("a"))
    feed.refuse(FeedRefused("mine", "feed_not_allowed", "no"))
    assert reader.take() == job("a")
    with pytest.raises(FeedRefused, match="no"):
        reader.take()


def test_unknown_states_and_reasons_are_kept() -> None:
    feed = followed()
    snapshot(feed, job("a", status="frozen", reason="moon"))
    assert (feed.jobs[0].status, feed.jobs[0].reason) == ("frozen", "moon")
    assert structs.asdict(feed.jobs[0])["tags"] == ()
