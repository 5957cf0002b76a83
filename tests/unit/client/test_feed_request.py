from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jobcast.client.feed_request import feed_query, feed_request
from jobcast.feeds import FeedFilter, JoinFeed

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def request(name: str = "mine", **arguments: Any) -> JoinFeed:
    unset = dict.fromkeys(("status", "tag", "task", "owner", "since"))
    return feed_request(name, **{**unset, "limit": 100, **arguments})


def test_arguments_become_the_filter() -> None:
    assert request() == JoinFeed(feed="mine")
    wanted = request("tag:project:7", status="running", task="shop.export", since=NOON, limit=5)
    assert wanted == JoinFeed(
        feed="tag:project:7",
        filter=FeedFilter(status=("running",), task="shop.export", since=NOON),
        limit=5,
    )
    several = FeedFilter(status=("running", "failed"), tag="x", owner="bob")
    assert request(status=["running", "failed"], tag="x", owner="bob").filter == several


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": "yours"}, "a feed is mine, all, owner:SUBJECT or tag:TAG, not 'yours'"),
        ({"name": ""}, "a feed is mine"),
        ({"since": NOON.replace(tzinfo=None)}, "since needs a time zone"),
        ({"status": []}, "status"),
        ({"status": [7]}, "status"),
        ({"tag": "a\nb"}, "tag"),
        ({"owner": ""}, "owner"),
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"limit": "many"}, "limit"),
    ],
)
def test_invalid_argument_is_named(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        request(**arguments)


def test_query_of_a_url_has_the_fields_of_the_filter() -> None:
    assert feed_query(request()) == ""
    assert feed_query(request("all", status=["running", "failed"], tag="a&b", since=NOON)) == (
        "status=running%2Cfailed&tag=a%26b&since=2026-11-27T12%3A00%3A00Z"
    )
    assert feed_query(request(owner="a b"), limit=5) == "owner=a%20b&limit=5"
