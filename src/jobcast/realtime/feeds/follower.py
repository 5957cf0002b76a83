"""A follower of a feed: the jobs that its client shows, and the changes that it has to get."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from jobcast.feeds import NO_FILTER, FeedFilter, FeedGone
from jobcast.protocol import packet_of
from jobcast.realtime.connection.frames import notice
from jobcast.realtime.feeds.listing import Entry, Page, Place
from jobcast.transports.base import Message

if TYPE_CHECKING:
    from jobcast.realtime.feeds.room import FeedRoom
    from jobcast.realtime.feeds.sender import FeedSender

BEFORE_ALL: Final = Place(-sys.maxsize, "")  # the end of the window of a client without jobs
AFTER_ALL: Final = Place(sys.maxsize, "")


class FeedFollower:
    """A connection's use of a feed.

    The client shows the jobs of its window that match its filter, as of the latest flush. The
    window reaches from the newest job to the last one of the pages so far. A job that changes
    several times before a flush is sent once.

    Args:
        feed: the name by which the client joined the feed, such as ``mine``.
        room: the feed.
        wanted: the jobs that the client wants.
        sender: sends the changes.
    """

    __slots__ = ("_pending", "_urgent", "_window", "feed", "is_paging", "room", "sender", "wanted")

    def __init__(self, feed: str, room: FeedRoom, wanted: FeedFilter, sender: FeedSender) -> None:
        self.feed = feed
        self.room = room
        self.wanted = wanted
        self.sender = sender
        self.is_paging = False  # whether pages are being sent; the changes follow them
        self._window = BEFORE_ALL  # the last visible place
        # The jobs to send, each with whether the client shows it. They are no more than the client
        # shows and the room has: a job that leaves the room unseen is removed.
        self._pending: OrderedDict[str, bool] = OrderedDict()
        self._urgent: OrderedDict[str, None] = OrderedDict()  # the pending jobs that have ended

    @property
    def has_pending(self) -> bool:
        """Whether changes may be sent now."""
        return bool(self._pending) and not self.is_paging

    def is_conflated(self, job_id: str, entry: Entry | None) -> bool:
        """Return whether a newer version of a job needs no further attention before the flush."""
        return job_id in self._pending and entry is not None and not entry.job.has_ended

    def changed(self, job_id: str, former: Entry | None, entry: Entry | None) -> None:
        """Note a newer version of a job; None for a job that has left the feed."""
        shown = self._pending.get(job_id)
        if shown is None:
            shown = self._shows(former)
        if not shown and not self._shows(entry):
            self._forget(job_id)
            return
        self._pending.setdefault(job_id, shown)
        is_urgent = _has_just_ended(former, entry)
        if is_urgent:
            self._urgent[job_id] = None
        if not self.is_paging:
            self.sender.wake(urgent=is_urgent)

    def take(self, limit: int, characters: int, *, urgent: bool = False) -> list[Message]:
        """Remove pending changes, endings first, and return their messages.

        Args:
            limit: the maximum number of messages.
            characters: the size of all messages after which no further one is added.
            urgent: whether to return endings only.
        """
        waiting = self._urgent if urgent else self._pending
        messages: list[Message] = []
        while waiting and len(messages) < limit and characters > 0:
            message = self._next()
            if message is not None:
                messages.append(message)
                characters -= len(message.packet)
        return messages

    def next_page(self, after: Place | None, limit: int) -> Page:
        """Return older jobs, which belong to the window from now on.

        Args:
            after: the place of the last job that the client has; None for the first page. The jobs
                between the window and a later place are no part of the window, so they come first.
            limit: the maximum number of jobs.
        """
        start = self._window if after is None else min(after, self._window)
        page = self.room.listing.page(self.wanted, start, limit)
        self._window = max(self._window, page.end or AFTER_ALL)
        for entry in page.entries:
            self._forget(entry.job.job_id)
        return page

    def _next(self) -> Message | None:
        if self._urgent:
            job_id, _ = self._urgent.popitem(last=False)
            shown = self._pending.pop(job_id)
        else:
            job_id, shown = self._pending.popitem(last=False)
        entry = self.room.listing.get(job_id)
        if entry is not None and self._shows(entry):
            return entry.message(self.feed)
        return notice(packet_of(FeedGone(feed=self.feed, job_id=job_id))) if shown else None

    def _shows(self, entry: Entry | None) -> bool:
        """Return whether a version of a job belongs on the client's screen."""
        if entry is None or entry.place > self._window:
            return False
        return self.wanted is NO_FILTER or self.wanted.matches(entry.job)

    def _forget(self, job_id: str) -> None:
        self._pending.pop(job_id, None)
        self._urgent.pop(job_id, None)


def _has_just_ended(former: Entry | None, entry: Entry | None) -> bool:
    if entry is None or not entry.job.has_ended:
        return False
    return former is None or not former.job.has_ended or former.job.epoch != entry.job.epoch
