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
    all of them. It is computed when the event is written: it never passes an event that waits. A
    ``joined`` by which a client discards its data about a job has an id, too. Without it, a client
    that is cut off then would resume after events that it no longer has.

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
        if event.job_id is None:
            return b"\n"
        if message.seq:
            self._cursors[event.job_id] = Cursor(epoch=message.epoch, seq=message.seq)
        elif not self._is_reset(event.job_id, message):
            return b"\n"
        return f"id: {','.join(map(format_cursor, self._cursors.values()))}\n\n".encode()

    def _is_reset(self, job_id: str, message: Message) -> bool:
        """Return whether a message starts another record of a job, and if so, move to its start."""
        known, joined = self._cursors[job_id], _joined(message)
        if known is None or joined is None or joined["epoch"] == known.epoch:
            return False
        epoch = joined["epoch"]  # empty if the store has no record
        self._cursors[job_id] = Cursor(epoch=epoch, seq=0) if epoch else None
        return True

    def _follow(self, job_id: str | None, message: Message) -> None:
        self.has_events = self.has_events or message.seq > 0
        if job_id is None:
            return
        joined = _joined(message)
        if joined is not None:
            self._set_ended(job_id, ended=joined["status"] in TERMINAL_STATES)
        elif message.seq and message.kind in (STATUS, TERMINAL):
            self._set_ended(job_id, ended=message.kind == TERMINAL)

    def _set_ended(self, job_id: str, *, ended: bool) -> None:
        if ended:
            self._open_jobs.discard(job_id)
        else:
            self._open_jobs.add(job_id)


def _joined(message: Message) -> dict[str, Any] | None:
    """Return the payload of a ``joined``; None for another message."""
    if not message.packet.startswith(JOINED):
        return None
    _, joined = msgspec.json.decode(message.packet[2:], type=tuple[str, dict[str, Any]])
    return joined
