"""The messages of the RabbitMQ transport.

A job event is python-socketio's message for an ``emit`` to the job's room, with jobcast's own
fields added, so that stock servers can read it.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from jobcast.events import (
    INFO,
    JOB_EVENTS,
    NO_INFO,
    Kind,
    decode_info,
    job_of,
    packet_tail,
    room_of,
)
from jobcast.transports.base import Outgoing, Predecessor, Required
from jobcast.transports.leases import Lease
from jobcast.transports.runs import UNKNOWN_RUN, Run

CANARY: Final = "jobcast.canary"  # the type of messages that verify that a process receives
CANCEL: Final = "jobcast.cancel"  # the type of messages that ask the servers to cancel a job
BIND_AGAIN: Final = "jobcast.bind-again"  # the type of messages that ask processes to bind again
NO_BODY: Final = b"{}"  # the body of messages that need only a type


class EventFields(Struct, frozen=True, gc=False, omit_defaults=True):
    """jobcast's own fields of an event, in addition to python-socketio's message."""

    publisher: str
    number: int
    kind: Kind
    previous: int = 0
    state: str | None = None
    owner: str | None = None
    run: Run = UNKNOWN_RUN
    after: str = ""
    requires: Required = ""
    info: str = ""


class Emit(Struct, frozen=True, gc=False):
    """python-socketio's message for an ``emit`` to a room."""

    event: str
    data: tuple[msgspec.Raw, ...]
    room: str
    jobcast: EventFields
    method: str = "emit"
    binary: bool = False
    namespace: str = "/"
    skip_sid: None = None
    callback: None = None
    host_id: str = ""


class LeaseUpdate(Struct, frozen=True):
    """A message that renews leases, or releases them if ``seconds`` is None."""

    leases: list[Lease]
    seconds: float | None = None


def encode_leases(update: LeaseUpdate) -> bytes:
    """Encode a message about leases."""
    return msgspec.json.encode(update)


def decode_leases(body: bytes | str) -> LeaseUpdate:
    """Decode a message about leases.

    Raises:
        ValueError: the message is not about leases.
    """
    try:
        return msgspec.json.decode(body, type=LeaseUpdate)
    except msgspec.DecodeError as exc:
        raise ValueError(f"not a message about leases: {exc}") from None


def encode(outgoing: Outgoing, publisher: str) -> bytes:
    """Encode a job event as python-socketio's message for an ``emit`` to the job's room."""
    name, payload = _split(outgoing.head)
    # A stock server passes the publisher's number on to its clients as the seq.
    info = decode_info(outgoing.info) if outgoing.kind == INFO else NO_INFO
    payload += packet_tail(max(1, outgoing.number), info=info).removesuffix("]")
    fields = EventFields(
        publisher=publisher,
        number=outgoing.number,
        previous=outgoing.previous,
        kind=outgoing.kind,
        state=outgoing.state,
        owner=outgoing.owner,
        run=outgoing.run,
        after=outgoing.after,
        requires=outgoing.requires,
        info=outgoing.info,
    )
    return msgspec.json.encode(
        Emit(
            event=name,
            data=(msgspec.Raw(payload.encode()),),
            room=room_of(outgoing.job_id),
            jobcast=fields,
            host_id=publisher,
        )
    )


def decode(body: bytes | str) -> tuple[Outgoing, str]:
    """Decode a job event, and return it with the id of its publisher.

    Raises:
        ValueError: the message is not a job event.
    """
    try:
        emit = msgspec.json.decode(body, type=Emit)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"not a job event: {exc}") from None
    job_id = job_of(emit.room)
    if job_id is None or emit.event not in JOB_EVENTS or len(emit.data) != 1:
        raise ValueError("not a job event")
    payload = bytes(emit.data[0]).decode()
    end = payload.rindex('"seq":') + len('"seq":')
    fields = emit.jobcast
    Predecessor.parse(fields.after)
    decode_info(fields.info)
    outgoing = Outgoing(
        job_id=job_id,
        kind=fields.kind,
        head=f'42["{emit.event}",{payload[:end]}',
        state=fields.state,
        owner=fields.owner,
        number=fields.number,
        previous=fields.previous,
        run=fields.run,
        after=fields.after,
        requires=fields.requires,
        info=fields.info,
    )
    return outgoing, fields.publisher


def _split(head: str) -> tuple[str, str]:
    """Split a packet's head into the event's name and its payload up to the seq."""
    name, _, payload = head.removeprefix('42["').partition('",')
    return name, payload
