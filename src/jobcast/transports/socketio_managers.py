"""python-socketio's ``emit`` for the rooms of jobs.

An ``emit`` to a job's room becomes an event of the job: it gets a ``seq`` and is stored in the
history. python-socketio handles all other emits itself.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import socketio
from socketio.async_pubsub_manager import AsyncPubSubManager

from jobcast.aio import cancel_and_wait
from jobcast.errors import InvalidMessage
from jobcast.events import JOB_EVENTS, job_of, now, parse_event
from jobcast.transports.base import Outgoing, Source


def job_event(event: str, data: Any, room: object) -> Outgoing | None:
    """Return the job event for an ``emit`` to a room, or None if it is not a job event.

    Raises:
        InvalidMessage: the room and the event name are a job's, but the data is invalid.
    """
    job_id = job_of(room)
    if job_id is None or event not in JOB_EVENTS:
        return None
    if not isinstance(data, dict):
        raise InvalidMessage(event, f"the data should be an object, not {type(data).__name__}")
    stamped = {"timestamp": now(), **data, "job_id": job_id, "seq": 0}
    try:
        return Outgoing.of(parse_event(event, stamped))
    except UnicodeEncodeError as exc:
        raise InvalidMessage(event, f"a text cannot be encoded: {exc.reason}") from None


class JobEventManagerMixin(socketio.PubSubManager):
    """A base for write-only managers outside of the Socket.IO process."""

    @abstractmethod
    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Store the events, and send them to the followers of their jobs."""

    def emit(
        self,
        event: str,
        data: Any,
        namespace: str | None = None,
        room: str | None = None,
        skip_sid: str | list[str] | None = None,
        callback: Any = None,
        to: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Emit to a room. Clients expect only the protocol's events in a job's room.

        Raises:
            InvalidMessage: the data of an event to a job's room is invalid.
            PublishFailed: an event to a job's room could not be stored.
        """
        outgoing = job_event(event, data, to or room)
        if outgoing is not None:
            self.publish([outgoing])
        else:
            super().emit(
                event, data, namespace=namespace, room=room, skip_sid=skip_sid,
                callback=callback, to=to, **kwargs,
            )  # fmt: skip


class AsyncJobEventManagerMixin(AsyncPubSubManager):
    """A base for client managers of a Socket.IO process, which tracks the rooms of each client.

    When a client disconnects, python-socketio searches every room. As every client has a room of
    its own, a thousand simultaneous disconnects would cost a million look-ups.
    """

    source: Source
    thread: asyncio.Task[None] | None = None  # python-socketio's name for its listener

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By namespace and sid, without the two rooms that every client is in.
        self._entered: dict[tuple[str, str], set[str]] = {}

    def basic_enter_room(
        self, sid: str, namespace: str, room: str | None, eio_sid: str | None = None
    ) -> None:
        super().basic_enter_room(sid, namespace, room, eio_sid)
        if room is not None and room != sid:
            self._entered.setdefault((namespace, sid), set()).add(room)

    def basic_leave_room(self, sid: str, namespace: str, room: str | None) -> None:
        super().basic_leave_room(sid, namespace, room)
        if room is not None and (rooms := self._entered.get((namespace, sid))) is not None:
            rooms.discard(room)
            if not rooms:
                del self._entered[namespace, sid]

    def basic_disconnect(self, sid: str, namespace: str, **_: Any) -> None:
        if namespace not in self.rooms:
            return
        for room in (*self._entered.get((namespace, sid), ()), sid, None):
            self.basic_leave_room(sid, namespace, room)
        self.callbacks.pop(sid, None)
        for pending in (self.pending_connect, self.pending_disconnect):
            if sid in pending.get(namespace, ()):
                pending[namespace].remove(sid)
                if not pending[namespace]:
                    del pending[namespace]

    async def aclose(self) -> None:
        """Stop listening and close all connections."""
        listener, self.thread = self.thread, None
        if listener is not None:
            if listener.get_loop() is asyncio.get_running_loop():
                await cancel_and_wait(listener)
            self.server.manager_initialized = False  # the next connection starts the listener again
        await self.source.aclose()

    @abstractmethod
    async def publish_event(self, outgoing: Outgoing) -> None:
        """Store the event, and send it to the followers of its job."""

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: str | None = None,
        room: str | None = None,
        skip_sid: str | list[str] | None = None,
        callback: Any = None,
        to: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Emit to a room, as :meth:`JobEventManagerMixin.emit` does."""
        outgoing = job_event(event, data, to or room)
        if outgoing is not None:
            await self.publish_event(outgoing)
        else:
            await super().emit(
                event, data, namespace=namespace, room=room, skip_sid=skip_sid,
                callback=callback, to=to, **kwargs,
            )  # fmt: skip
