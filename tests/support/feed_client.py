"""A client of a feed that does what the protocol tells clients to do, and checks the messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import convert

from jobcast.feeds import FEED_EVENTS
from tests.support import eventually


class FeedView:
    """The list of one feed as a client shows it.

    Args:
        feed: the name by which the client joined the feed.
        events: the name and the payload of each event that the client has received. The view reads
            those that are added later, and none that was there before.
    """

    def __init__(self, feed: str, events: Sequence[tuple[Any, ...]]) -> None:
        self.feed = feed
        self._events = events
        self._read = len(events)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.seen: set[str] = set()  # every job that was ever in the list
        self.is_complete = False  # whether the snapshot has arrived
        self.cursor: str | None = None
        self.left: dict[str, Any] | None = None
        self.snapshots = 0
        self.messages = 0

    def update(self) -> FeedView:
        """Apply the events that have arrived."""
        for name, payload, *_ in self._events[self._read :]:
            self._read += 1
            self._receive(name, payload)
        return self

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until the list has changed so that a condition holds."""
        await eventually(lambda: self.update() and condition(), what)

    def _receive(self, name: str, payload: dict[str, Any]) -> None:
        cls = FEED_EVENTS.get(name)
        if cls is None or payload["feed"] != self.feed:
            return
        convert(payload, cls)
        self.messages += 1
        getattr(self, f"_{name}")(payload)
        self.seen.update(self.jobs)

    @property
    def ids(self) -> list[str]:
        """The jobs in the order of the list, the newest first."""
        by_id = sorted(self.jobs)
        return sorted(by_id, key=lambda one: str(self.jobs[one]["created_at"]), reverse=True)

    def status_of(self, job_id: str) -> str | None:
        job = self.jobs.get(job_id)
        return None if job is None else job["status"]

    def _feed_snapshot(self, payload: dict[str, Any]) -> None:
        if payload.get("reset"):
            self.jobs.clear()
            self.is_complete = False
            self.snapshots += 1
        self.jobs.update((job["job_id"], job) for job in payload["jobs"])
        if payload.get("last"):
            self.is_complete = True
            self.cursor = payload.get("cursor")

    def _feed_job(self, payload: dict[str, Any]) -> None:
        assert self.is_complete, "a change before the last page of the snapshot"
        job = {name: value for name, value in payload.items() if name != "feed"}
        self.jobs[job["job_id"]] = job

    def _feed_gone(self, payload: dict[str, Any]) -> None:
        assert self.is_complete
        del self.jobs[payload["job_id"]]  # a server removes only jobs that the client has

    def _feed_left(self, payload: dict[str, Any]) -> None:
        self.left = payload
