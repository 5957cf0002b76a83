"""The events in the channels and streams of Redis."""

from __future__ import annotations

from typing import Any, cast

from jobcast.events import Kind
from jobcast.transports.base import Message


def parse_messages(data: bytes) -> list[Message]:
    """Parse the events of a message: a line with the epoch, then ``seq kind packet`` lines.

    Raises:
        ValueError: the message has another format.
    """
    epoch, *lines = data.decode().split("\n")
    messages = []
    for line in lines:
        seq, kind, packet = line.split(" ", 2)
        messages.append(Message(epoch, int(seq), cast("Kind", kind), packet))
    if not messages:
        raise ValueError("the message has no event")
    return messages


def parse_entry(epoch: str, entry: Any) -> Message:
    """Parse the event of a stream entry."""
    _, (_, kind, _, packet) = entry
    return Message(epoch, seq_of(entry), cast("Kind", kind.decode()), packet.decode())


def parse_progress(epoch: str, text: bytes) -> Message:
    """Parse the latest progress in a record: ``seq packet``."""
    seq, _, packet = text.decode().partition(" ")
    return Message(epoch, int(seq), "p", packet)


def seq_of(entry: Any) -> int:
    """Return the seq of a stream entry."""
    return int(entry[0].partition(b"-")[0])
