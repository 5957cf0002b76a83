"""The feeds of the synchronous client."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType

from jobcast.client.attempts import Attempts
from jobcast.client.event_lines import StreamMessage, read_messages
from jobcast.client.feed_request import feed_query
from jobcast.client.followed_feed import FeedItem, FollowedFeed
from jobcast.client.http import (
    ANSWER_TIMEOUT,
    EVENT_STREAM,
    JSON,
    SILENCE,
    HttpConnection,
    Unavailable,
    refusals_as,
)
from jobcast.client.retry import RETRYABLE_CODES
from jobcast.errors import ConnectionRefused, FeedRefused, InvalidMessage
from jobcast.events import TokenExpiring, parse_request
from jobcast.feeds import FEED_EVENTS, MAX_HTTP_PAGE, FeedLeft, JobSummary, JoinFeed

logger = logging.getLogger(__name__)

_CLOSED: Final = object()


class FeedPage(Struct, frozen=True):
    """The answer to a request for jobs of a feed."""

    jobs: list[JobSummary]
    cursor: str | UnsetType = UNSET  # of the next page


class Feed:
    """A live list of jobs. ``JobClient.feed`` makes it; ``with`` opens it.

    It differs from :class:`jobcast.client.Feed` in that :attr:`jobs` changes only while an
    iteration waits for the next change, or :meth:`load_more` for older jobs.

    Raises:
        FeedRefused: the server refused the feed; or, in an iteration, the right to it has ended.
        ConnectionRefused: the server refused the token, or could not be reached at first.

    >>> with client.feed("mine", status="running") as feed:
    ...     for change in feed:
    ...         print(len(feed.jobs), change)
    """

    def __init__(self, request: JoinFeed, connection: HttpConnection) -> None:
        self._request = request
        self._connection = connection
        self._followed = FollowedFeed(request)
        self._reader = self._followed.attach(lambda: None)
        self._messages = self._receive_all()

    @property
    def name(self) -> str:
        """The name of the feed."""
        return self._request.feed

    @property
    def jobs(self) -> tuple[JobSummary, ...]:
        """The jobs of the list, the newest first. Empty until the feed is open."""
        return self._followed.jobs

    @property
    def has_more(self) -> bool:
        """Whether the feed has older jobs that match, beyond those of the list."""
        return self._followed.has_more

    def load_more(self) -> None:
        """Extend the list by as many older jobs as the limit, and wait until it has them.

        An iteration yields the older jobs as well. Without older jobs, or with 10,000 jobs in the
        list, nothing changes.

        Raises:
            FeedRefused, ConnectionRefused: as in an iteration.

        >>> with client.feed("all", limit=50) as feed:
        ...     while feed.has_more and len(feed.jobs) < 200:
        ...         feed.load_more()
        """
        self._followed.want_more()
        is_open = True
        while self._followed.is_loading and is_open:
            if self._reader.problem is not None:
                raise self._reader.problem
            is_open = next(self._messages, _CLOSED) is not _CLOSED

    def __enter__(self) -> Self:
        while not self._followed.has_snapshot:
            next(self._messages)
        self._reader.skip_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._messages.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FeedItem:
        while (item := self._reader.take()) is None:
            next(self._messages)
        return item

    def _receive_all(self) -> Generator[None, None, None]:
        """Apply the messages of one stream after the other, and yield after each."""
        attempts = Attempts(self._connection, None)
        while True:
            try:
                with closing(self._stream()) as messages:
                    for message in messages:
                        attempts.succeeded()
                        self._receive(message)
                        yield
                        if self._followed.needs_older_jobs:
                            break  # a new stream begins with them
            except Unavailable as exc:
                attempts.pause(exc)

    def _stream(self) -> Generator[StreamMessage, None, None]:
        """Yield the messages of one stream.

        Raises:
            Unavailable: the stream ended.
        """
        limit = self._followed.join_request()["limit"]
        query = feed_query(self._request, limit=limit)
        path = f"/feeds/{quote(self.name, safe='')}/events?{query}"
        with (
            refusals_as(FeedRefused, self.name),
            self._connection.open(path, EVENT_STREAM, {}, silence=SILENCE) as response,
        ):
            yield from read_messages(response.iter_bytes())
        raise Unavailable(ConnectionRefused("unreachable", "the server ended the stream"))

    def _receive(self, message: StreamMessage) -> None:
        if message.name == TokenExpiring.name:
            self._connection.renew_token()
        elif message.name in FEED_EVENTS:
            try:
                self._apply(message)
            except (InvalidMessage, msgspec.DecodeError) as exc:
                logger.warning(
                    "feed %r: ignored a message that violates the protocol: %s", self.name, exc
                )

    def _apply(self, message: StreamMessage) -> None:
        payload = msgspec.json.decode(message.data)
        change = parse_request(message.name, payload, FEED_EVENTS[message.name])
        if not isinstance(change, FeedLeft):
            self._followed.receive(change)
            return
        refusal = FeedRefused(self.name, change.code, change.message)
        if change.code in RETRYABLE_CODES:
            raise Unavailable(refusal)
        self._followed.refuse(refusal)


def read_jobs(connection: HttpConnection, request: JoinFeed) -> list[JobSummary]:
    """Return jobs of a feed, the newest first.

    Raises:
        FeedRefused: the server refused the request.
        Unavailable: the server cannot answer now.
        ConnectionRefused: the server refused the token, or it is not a jobcast server.
    """
    jobs: list[JobSummary] = []
    cursor: str | UnsetType = UNSET
    while True:
        page = _read_page(connection, request, request.limit - len(jobs), cursor)
        jobs += page.jobs
        cursor = page.cursor
        if cursor is UNSET or not page.jobs or len(jobs) >= request.limit:
            return jobs[: request.limit]


def _read_page(
    connection: HttpConnection, request: JoinFeed, limit: int, cursor: str | UnsetType
) -> FeedPage:
    after = {} if cursor is UNSET else {"cursor": cursor}
    query = feed_query(request, feed=request.feed, limit=min(limit, MAX_HTTP_PAGE), **after)
    with (
        refusals_as(FeedRefused, request.feed),
        connection.open(f"/jobs?{query}", JSON, {}, silence=ANSWER_TIMEOUT) as response,
    ):
        try:
            return msgspec.json.decode(response.read(), type=FeedPage)
        except msgspec.MsgspecError:
            raise connection.foreign_answer(response) from None
