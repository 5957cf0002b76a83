"""The events of jobs as an event stream."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from jobcast.events import STATUS, TERMINAL, TERMINAL_STATES, Cursor, Joined
from jobcast.realtime.http.event_stream import Event, EventStream
from jobcast.realtime.http.request import format_cursor
from jobcast.transports.base import Message

JOINED: Final = f'42["{Joined.name}",'


class JobStream(EventStream):
    """A stream of the events of jobs, which ends when all of the jobs have ended.

    The id of an event has the position of each job after this event, so that a client can resume
    all of them. It is computed when the event is written: it never passes an event that waits.

    Args:
        cursors: the jobs, in the order of the URL, each with the client's position.
        arguments: those of :class:`EventStream`.
    """

    __slots__ = ("_cursors", "_open_jobs", "has_events")

    def __init__(self, *arguments: Any, cursors: dict[str, Cursor | None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cursors = dict(cursors)
        self._open_jobs = set(cursors)  # jobs that have not ended, as far as was queued
        self.has_events = False  # whether a job event was queued

    @property
    def is_complete(self) -> bool:
        return not self._open_jobs

    async def left(self, job_id: str) -> None:
        self._open_jobs.discard(job_id)
        self._changed.set()

    def _end(self, event: Event) -> bytes:
        """Return the id and the final line of an event, and move the position of its job.

        The id comes last: a client that is cut off within an event does not have its id.
        """
        message = event.message
        if event.job_id is None or not message.seq:
            return b"\n"
        self._cursors[event.job_id] = Cursor(epoch=message.epoch, seq=message.seq)
        return f"id: {','.join(map(format_cursor, self._cursors.values()))}\n\n".encode()

    def _follow(self, job_id: str | None, message: Message) -> None:
        self.has_events = self.has_events or message.seq > 0
        if job_id is None:
            return
        if message.packet.startswith(JOINED):
            _, joined = msgspec.json.decode(message.packet[2:], type=tuple[str, dict[str, Any]])
            self._set_ended(job_id, ended=joined["status"] in TERMINAL_STATES)
        elif message.seq and message.kind in (STATUS, TERMINAL):
            self._set_ended(job_id, ended=message.kind == TERMINAL)

    def _set_ended(self, job_id: str, *, ended: bool) -> None:
        if ended:
            self._open_jobs.discard(job_id)
        else:
            self._open_jobs.add(job_id)
