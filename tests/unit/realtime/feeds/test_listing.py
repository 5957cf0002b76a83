"""The jobs of a feed in order, and the places in the list that cursors name."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcast.errors import InvalidMessage
from jobcast.feeds import NO_FILTER, FeedFilter
from jobcast.realtime.feeds.listing import Entry, Listing, Place
from jobcast.realtime.feeds.pages import page_json, snapshot_packet
from tests.unit.realtime.feeds.summaries import NOON, job


def listing_of(*numbers: int) -> Listing:
    listing = Listing()
    for number in numbers:
        listing.put(job(number))
    return listing


def ids(listing: Listing, wanted: FeedFilter = NO_FILTER) -> list[str]:
    return [entry.job.job_id for entry in listing.page(wanted, None, 10_000).entries]


def test_newest_jobs_come_first() -> None:
    assert ids(listing_of(2, 3, 1)) == ["job-3", "job-2", "job-1"]


def test_jobs_of_the_same_moment_are_ordered_by_id() -> None:
    listing = Listing()
    for number in (2, 1, 3):
        listing.put(job(number, created_at=NOON))
    assert ids(listing) == ["job-1", "job-2", "job-3"]


def test_place_does_not_depend_on_the_time_zone() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5)))
    assert Place.of(job(created_at=elsewhere)) == Place.of(job(created_at=NOON))


def test_newer_version_replaces_a_job_even_if_its_time_has_changed() -> None:
    listing = listing_of(1, 2)
    listing.put(job(1, created_at=NOON + timedelta(days=1)))
    assert ids(listing) == ["job-1", "job-2"]
    assert len(listing) == 2


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 9))))
def test_pages_have_every_matching_job_once_in_order(steps: list[tuple[bool, int, int]]) -> None:
    listing, model = Listing(), {}
    for is_removed, number, minute in steps:
        if is_removed:
            listing.remove(f"job-{number}")
            model.pop(f"job-{number}", None)
        else:
            version = job(number, created_at=NOON + timedelta(minutes=minute))
            listing.put(version)
            model[version.job_id] = version
    expected = sorted(model.values(), key=Place.of)
    found, after = [], None
    while True:
        page = listing.page(NO_FILTER, after, 3)
        found += [entry.job for entry in page.entries]
        after = page.end
        if after is None:
            break
        assert len(page.entries) == 3
    assert found == expected


def test_page_that_ends_with_the_last_match_has_no_end() -> None:
    listing = listing_of(*range(5))
    listing.put(job(0, status="queued"))
    running = FeedFilter(status=("running",))
    assert listing.page(running, None, 4).end is None
    assert listing.page(running, None, 3).end == Place.of(job(2))
    assert listing.total(running) == 4
    assert listing.total(NO_FILTER) == 5


@given(st.datetimes(timezones=st.just(UTC)))
def test_cursor_survives_a_round_trip(moment: datetime) -> None:
    place = Place.of(job(created_at=moment, job_id="a~b/c"))
    assert Place.parse(place.cursor) == place


@pytest.mark.parametrize(
    "cursor",
    ["", "~", "1", "1~", "~a", "x~a", "1~a b", "1~a\n", "1~" + "a" * 129, "9" * 19 + "~a", "٣~a"],
)
def test_text_that_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidMessage):
        Place.parse(cursor)


def test_packets_are_what_the_protocol_describes() -> None:
    listing = listing_of(1, 2)
    page = listing.page(NO_FILTER, None, 1)
    name, payload = json.loads(snapshot_packet('tag:"a"', page, reset=True, last=True)[2:])
    assert name == "feed_snapshot"
    assert payload == {
        "feed": 'tag:"a"',
        "jobs": [
            {
                "job_id": "job-2",
                "epoch": "a",
                "seq": 1,
                "status": "started",
                "created_at": "2026-01-01T12:02:00Z",
                "owner": "alice",
            }
        ],
        "reset": True,
        "last": True,
        "cursor": Place.of(job(2)).cursor,
    }
    _, payload = json.loads(snapshot_packet("mine", page, reset=False, last=False)[2:])
    assert payload.keys() == {"feed", "jobs"}
    document = json.loads(page_json("mine", page, 2))
    assert document == {**payload, "total": 2, "cursor": Place.of(job(2)).cursor}


def test_version_of_a_job_is_encoded_once_for_each_name() -> None:
    entry = Entry(job(7))
    message = entry.message("mine")
    assert entry.message("mine") is message
    assert json.loads(message.packet[2:])[1] == {
        **json.loads(entry.text),
        "feed": "mine",
    }
    assert json.loads(entry.message("all").packet[2:])[1]["feed"] == "all"
