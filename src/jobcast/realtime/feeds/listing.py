"""The jobs of a feed in order, the newest first."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Self

import msgspec

from jobcast.errors import InvalidMessage
from jobcast.events import JOB_ID_PATTERN
from jobcast.feeds import NO_FILTER, FeedFilter, JobSummary
from jobcast.realtime.connection.frames import notice
from jobcast.transports.base import Message

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CURSOR: Final = re.compile(rf"(-?[0-9]{{1,18}})~({JOB_ID_PATTERN[1:-2]})\Z")
_encoder = msgspec.json.Encoder()


class Place(NamedTuple):
    """The place of a job in a list with the newest jobs first. Newer jobs have smaller places.

    >>> Place.parse("1767225600000000~42").cursor
    '1767225600000000~42'
    """

    age: int  # microseconds from the creation of the job to 1970, so usually negative
    job_id: str

    @classmethod
    def of(cls, job: JobSummary) -> Self:
        return cls((_BEGINNING - job.created_at) // _MICROSECOND, job.job_id)

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """Parse the cursor of a page.

        Raises:
            InvalidMessage: the text is no cursor.
        """
        match = _CURSOR.match(cursor)
        if match is None:
            raise InvalidMessage("join_feed", "the cursor should be one that the server has sent")
        return cls(-int(match[1]), match[2])

    @property
    def cursor(self) -> str:
        """The text with which a client requests the jobs after this place."""
        return f"{-self.age}~{self.job_id}"


class Entry:
    """A version of a job in a feed, encoded once for all of its followers."""

    __slots__ = ("_message", "_message_feed", "_text", "job", "place")

    def __init__(self, job: JobSummary) -> None:
        self.job = job
        self.place = Place.of(job)
        self._text: str | None = None
        self._message: Message | None = None
        self._message_feed = ""  # the name of the feed in the message

    @property
    def text(self) -> str:
        """The summary as JSON."""
        if self._text is None:
            self._text = _encoder.encode(self.job).decode()
        return self._text

    def message(self, feed: str) -> Message:
        """Return the ``feed_job`` for followers that joined the feed by this name."""
        if self._message is None or self._message_feed != feed:
            packet = f'42["feed_job",{{"feed":{quoted(feed)},{self.text[1:]}]'
            self._message, self._message_feed = notice(packet), feed
        return self._message


class Page(NamedTuple):
    """Consecutive jobs of a list."""

    entries: list[Entry]
    # The place of the last job if there are older ones. None: the page is the end of the list.
    end: Place | None


class Listing:
    """The jobs of a feed."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._places: list[Place] = []  # in order

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, job_id: str) -> Entry | None:
        return self._entries.get(job_id)

    def put(self, job: JobSummary) -> Entry:
        """Add a job, or replace its former version. Return the new entry."""
        self.remove(job.job_id)
        entry = self._entries[job.job_id] = Entry(job)
        insort(self._places, entry.place)
        return entry

    def remove(self, job_id: str) -> Entry | None:
        """Remove and return the entry of a job; None if it is not in the list."""
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            del self._places[bisect_left(self._places, entry.place)]
        return entry

    @property
    def oldest(self) -> Entry:
        """The oldest job of a list that is not empty."""
        return self._entries[self._places[-1].job_id]

    def total(self, wanted: FeedFilter) -> int:
        """Return the number of jobs that match a filter."""
        if wanted == NO_FILTER:
            return len(self)
        return sum(wanted.matches(entry.job) for entry in self)

    def page(self, wanted: FeedFilter, after: Place | None, limit: int) -> Page:
        """Return the newest jobs after a place that match a filter.

        Args:
            wanted: the jobs to return.
            after: the place of the last job of the previous page; None for the first page.
            limit: the maximum number of jobs, at least 1.
        """
        found: list[Entry] = []
        for entry in self._after(after):
            if not wanted.matches(entry.job):
                continue
            if len(found) == limit:
                return Page(found, found[-1].place)
            found.append(entry)
        return Page(found, None)

    def _after(self, place: Place | None) -> Iterator[Entry]:
        start = 0 if place is None else bisect_right(self._places, place)
        for index in range(start, len(self._places)):
            yield self._entries[self._places[index].job_id]


def quoted(text: str) -> str:
    """Return a text as a JSON string."""
    return _encoder.encode(text).decode()
