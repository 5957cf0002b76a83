"""Validation of clients' Socket.IO packets before python-socketio reads them.

python-socketio dispatches any event that a client names, including ``connect`` and ``disconnect``,
and collects as many attachments as a packet announces.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

MAX_NAME: Final = 128  # characters in an event's name
MAX_ATTACHMENTS: Final = 64  # attachments per packet, if binary packets are allowed
MAX_ATTACHMENT_BYTES: Final = 1024 * 1024  # bytes of all attachments of a packet

#: Event names that Socket.IO reserves. Clients must not call the handlers with these names.
RESERVED: Final = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)

EVENT: Final = "2"
_BINARY: Final = "56"

# Type, attachments, namespace and id. [0-9] excludes the non-ASCII digits that int() accepts.
_PACKET: Final = re.compile(
    r"(?P<type>[0-3]|[56](?P<attachments>[0-9]{1,10})-)(?P<namespace>/[^,]*(?:,|\Z))?(?P<id>[0-9]{0,16})"
)
_NAME: Final = re.compile(r'\[\s*("(?:[^"\\]|\\.)*")')


class BadPacket(ValueError):
    """A client sent a packet that clients must not send."""


class Header(msgspec.Struct, frozen=True):
    """The header of a packet, without its data."""

    type: str
    namespace: str
    attachments: int
    event: str | None  # the event's name, or None for other packet types


def read_header(packet: object, *, binary: bool) -> Header:
    """Parse the header of a packet.

    Args:
        packet: the payload of the Engine.IO message.
        binary: whether packets with attachments are allowed.

    Raises:
        BadPacket: the message is not a packet that a client may send.

    >>> read_header('21["join_job",{"job_id":"42"}]', binary=False).event
    'join_job'
    """
    if not isinstance(packet, str):
        raise BadPacket("the message is not text")
    match = _PACKET.match(packet)
    if match is None:
        raise BadPacket("the message is not a Socket.IO packet")
    kind = match["type"][0]
    if kind in _BINARY and not binary:
        raise BadPacket("binary packets are not allowed")
    attachments = int(match["attachments"] or 0)
    if attachments > MAX_ATTACHMENTS:
        raise BadPacket(f"a packet may have at most {MAX_ATTACHMENTS} attachments")
    namespace = (match["namespace"] or "/").rstrip(",").partition("?")[0]
    event = _event_name(packet, match.end()) if kind in "25" else None
    return Header(kind, namespace, attachments, event)


def _event_name(packet: str, start: int) -> str:
    match = _NAME.match(packet, start)
    if match is None:
        raise BadPacket("an event must start with its name")
    try:
        name = msgspec.json.decode(match[1], type=str)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise BadPacket("the event's name cannot be parsed") from None
    if name in RESERVED:
        raise BadPacket(f"{name} is a reserved name")
    if len(name) > MAX_NAME:
        raise BadPacket(f"an event's name may have at most {MAX_NAME} characters")
    return name
