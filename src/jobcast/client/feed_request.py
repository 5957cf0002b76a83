"""The request for the jobs of a feed, from the arguments of a caller."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from urllib.parse import quote, urlencode

import msgspec
from msgspec import UNSET

from jobcast.errors import InvalidMessage
from jobcast.events import parse_request
from jobcast.feeds import NO_FILTER, FeedFilter, JoinFeed, check_feed


def feed_request(
    name: str,
    *,
    status: str | Iterable[str] | None,
    tag: str | None,
    task: str | None,
    owner: str | None,
    since: datetime | None,
    limit: int,
) -> JoinFeed:
    """Return the request for jobs of a feed. The arguments are those of ``JobClient.feed``.

    Raises:
        ValueError: an argument is not valid.
    """
    check_feed(name)
    if since is not None and since.utcoffset() is None:
        raise ValueError(f"since needs a time zone, such as datetime.now(UTC); it is {since!r}")
    states = (status,) if isinstance(status, str) else None if status is None else tuple(status)
    values = {"status": states, "tag": tag, "task": task, "owner": owner, "since": since}
    given = {field: value for field, value in values.items() if value is not None}
    try:
        wanted = parse_request("filter", given, FeedFilter)
        request = {"feed": name, "limit": limit}
        if wanted != NO_FILTER:
            request["filter"] = wanted
        return parse_request("feed", request, JoinFeed)
    except InvalidMessage as exc:
        raise ValueError(f"the request for a feed is not valid: {exc.problem}") from None


def feed_query(request: JoinFeed, **parameters: object) -> str:
    """Return the filter of a request as the query of a URL, with further parameters."""
    wanted = {} if request.filter is UNSET else msgspec.to_builtins(request.filter)
    if "status" in wanted:
        wanted["status"] = ",".join(wanted["status"])
    return urlencode({**wanted, **parameters}, quote_via=quote)
