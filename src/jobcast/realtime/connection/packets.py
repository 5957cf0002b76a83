"""Socket.IO packets as clients send them, checked before python-socketio reads them.

python-socketio dispatches whatever event a client names, ``connect`` and ``disconnect`` included,
and collects as many attachments as a packet announces.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

MAX_NAME: Final = 128  # characters of an event's name
MAX_ATTACHMENTS: Final = 64  # of one packet, where an application may use them
MAX_ATTACHMENT_BYTES: Final = 1024 * 1024  # of one packet

#: Names that Socket.IO keeps for itself. A handler of such a name is no client's to call.
RESERVED: Final = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)

EVENT: Final = "2"
_BINARY: Final = "56"

# Type, attachments, namespace, id, and the rest. Digits are ASCII: int() takes others too.
_PACKET: Final = re.compile(
    r"(?P<type>[0-3]|[56](?P<attachments>[0-9]{1,10})-)(?P<namespace>/[^,]*(?:,|\Z))?(?P<id>[0-9]{0,16})"
)
_NAME: Final = re.compile(r'\[\s*("(?:[^"\\]|\\.)*")')


class BadPacket(ValueError):
    """A client sent what no client should."""


class Header(msgspec.Struct, frozen=True):
    """What a packet is, before its data."""

    type: str
    namespace: str
    attachments: int
    event: str | None  # the name, if the packet is an event


def read_header(packet: object, *, binary: bool) -> Header:
    """Read the head of a packet.

    Args:
        packet: the Engine.IO message.
        binary: whether packets with attachments are allowed.

    Raises:
        BadPacket: it is no packet, or none that a client may send.

    >>> read_header('21["join_job",{"job_id":"42"}]', binary=False).event
    'join_job'
    """
    if not isinstance(packet, str):
        raise BadPacket("the message is no text")
    match = _PACKET.match(packet)
    if match is None:
        raise BadPacket("the message is no Socket.IO packet")
    kind = match["type"][0]
    if kind in _BINARY and not binary:
        raise BadPacket("binary packets are not allowed")
    attachments = int(match["attachments"] or 0)
    if attachments > MAX_ATTACHMENTS:
        raise BadPacket(f"a packet may have {MAX_ATTACHMENTS} attachments")
    namespace = (match["namespace"] or "/").rstrip(",").partition("?")[0]
    event = _event_name(packet, match.end()) if kind in "25" else None
    return Header(kind, namespace, attachments, event)


def _event_name(packet: str, start: int) -> str:
    match = _NAME.match(packet, start)
    if match is None:
        raise BadPacket("an event begins with its name")
    try:
        name = msgspec.json.decode(match[1], type=str)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise BadPacket("the name of an event cannot be read") from None
    if name in RESERVED:
        raise BadPacket(f"{name} is a reserved name")
    if len(name) > MAX_NAME:
        raise BadPacket(f"the name of an event may have {MAX_NAME} characters")
    return name
