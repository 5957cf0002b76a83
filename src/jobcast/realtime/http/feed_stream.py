"""A feed as an event stream."""

from __future__ import annotations

from typing import Any

from jobcast.realtime.http.event_stream import EventStream


class FeedStream(EventStream):
    """A stream of one feed, which ends when its client loses the right to list the feed.

    Its events have no ids: a client that reconnects gets a new snapshot.
    """

    __slots__ = ("_has_left",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._has_left = False

    @property
    def is_complete(self) -> bool:
        return self._has_left

    async def left(self, job_id: str) -> None:
        """Do nothing: the stream follows no job."""

    def left_feed(self, feed: str) -> None:
        del feed  # the only one
        self._has_left = True
        self._changed.set()
