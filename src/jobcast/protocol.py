"""The messages of protocol version 1: requests, their acknowledgements, and packets.

``protocol/PROTOCOL.md`` specifies the protocol and ``protocol/events.schema.json`` has its JSON
Schema. :mod:`jobcast.events` has the messages about jobs, :mod:`jobcast.feeds` those about feeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from jobcast.errors import InvalidMessage
from jobcast.events import (
    Auth,
    CancelAccepted,
    CancelJob,
    Closing,
    Draining,
    Hello,
    JobGap,
    JoinAccepted,
    Joined,
    JoinJob,
    LeaveAccepted,
    LeaveJob,
    Left,
    RefreshToken,
    Refusal,
    TokenAccepted,
    TokenExpiring,
    parse_request,
)
from jobcast.feeds import (
    FEED_ACKNOWLEDGEMENTS,
    FEED_REQUESTS,
    FeedGone,
    FeedJob,
    FeedLeft,
    FeedSnapshot,
)

# The messages that are no part of a job's history.
ServerMessage = (
    Hello | Joined | JobGap | Left | TokenExpiring | Closing | Draining
    | FeedSnapshot | FeedJob | FeedGone | FeedLeft
)  # fmt: skip

REQUESTS: Final[Mapping[str, type[Struct]]] = {
    "connect": Auth,
    "join_job": JoinJob,
    "leave_job": LeaveJob,
    "cancel_job": CancelJob,
    "refresh_token": RefreshToken,
    **FEED_REQUESTS,
}

ACKNOWLEDGEMENTS: Final[Mapping[str, type[Struct]]] = {
    "join_job": JoinAccepted,
    "leave_job": LeaveAccepted,
    "cancel_job": CancelAccepted,
    "refresh_token": TokenAccepted,
    **FEED_ACKNOWLEDGEMENTS,
}

_encoder = msgspec.json.Encoder()


def parse_acknowledgement(name: str, payload: object) -> Struct:
    """Return the server's acknowledgement of the request ``name``: acceptance or :class:`Refusal`.

    Raises:
        InvalidMessage: the acknowledgement violates the protocol.
    """
    if not isinstance(payload, Mapping) or "ok" not in payload:
        raise InvalidMessage(name, "the acknowledgement has no ok")
    return parse_request(name, payload, ACKNOWLEDGEMENTS[name] if payload["ok"] else Refusal)


def packet_of(message: ServerMessage) -> str:
    """Return the Socket.IO packet of a message that is not part of a job's history."""
    return f'42["{message.name}",{_encoder.encode(message).decode()}]'
