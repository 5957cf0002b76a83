"""Parsed requests of the HTTP interface about feeds."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from msgspec import UNSET, UnsetType
from starlette.requests import Request

from jobcast.events import parse_request
from jobcast.feeds import (
    DEFAULT_FEED_LIMIT,
    MAX_FEED_LIMIT,
    MAX_HTTP_PAGE,
    MINE,
    NO_FILTER,
    FeedFilter,
    JoinFeed,
    is_feed,
)
from jobcast.realtime.feeds.listing import Place
from jobcast.realtime.feeds.service import FeedQuery
from jobcast.realtime.http.request import invalid, path_below


def feed_of(request: Request, prefix: str) -> str:
    """Return the feed of a path ``/feeds/FEED/events``.

    Raises:
        Problem: the path names no events of a feed.
    """
    stem = path_below(request, f"{prefix}/feeds/")
    if not stem.endswith("/events"):
        raise invalid("the path should be /feeds/FEED/events, with the name of the feed encoded")
    try:
        return _feed(unquote(stem.removesuffix("/events"), errors="strict"))
    except UnicodeDecodeError:
        raise invalid("the name of a feed should be encoded as UTF-8") from None


def parse_page(request: Request) -> FeedQuery:
    """Parse a request for a page of a feed.

    Raises:
        Problem: a parameter is invalid.
        InvalidMessage: the filter or the cursor is invalid.
    """
    cursor = request.query_params.get("cursor")
    return FeedQuery(
        feed=_feed(request.query_params.get("feed", MINE)),
        wanted=_filter(request) or NO_FILTER,
        limit=_limit(request, MAX_HTTP_PAGE),
        after=Place.parse(cursor) if cursor else None,
    )


def parse_feed_stream(request: Request, feed: str) -> JoinFeed:
    """Parse a request for the events of a feed.

    Raises:
        Problem: a parameter is invalid.
        InvalidMessage: the filter is invalid.
    """
    return JoinFeed(feed=feed, filter=_filter(request), limit=_limit(request, MAX_FEED_LIMIT))


def _filter(request: Request) -> FeedFilter | UnsetType:
    """Return the filter of a query; ``status`` may list several values."""
    query = request.query_params
    values: dict[str, Any] = {
        name: query[name] for name in ("tag", "task", "owner", "since") if query.get(name)
    }
    states = [state for text in query.getlist("status") for state in text.split(",") if state]
    if states:
        values["status"] = states
    return parse_request("filter", values, FeedFilter) if values else UNSET


def _limit(request: Request, high: int) -> int:
    text = request.query_params.get("limit", str(DEFAULT_FEED_LIMIT))
    # int() also accepts other digits, signs and underscores.
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) < 1:
        raise invalid(f"limit should be a whole number of jobs, at least 1, not {text[:40]!r}")
    return min(int(text), high)


def _feed(name: str) -> str:
    if not is_feed(name):
        raise invalid("a feed should be mine, tag:TAG, owner:SUBJECT or all")
    return name
