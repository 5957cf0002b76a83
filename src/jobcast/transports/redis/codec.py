"""The events in the channels and streams of Redis."""

from __future__ import annotations

from typing import Any, cast

from jobcast.events import LOG, JobInfo, Kind, decode_info
from jobcast.transports.base import Message


def parse_messages(data: bytes) -> list[Message]:
    """Parse the events of a message: a line with the epoch, then ``seq kind packet`` lines.

    Raises:
        ValueError: the message has another format.
    """
    epoch, *lines = data.split(b"\n")
    if not lines:
        raise ValueError("the message has no event")
    return [parse_event(epoch.decode(), line) for line in lines]


def parse_event(epoch: str, data: bytes) -> Message:
    """Parse an event: its seq, its kind and its packet, separated by spaces.

    Raises:
        ValueError: the event has another format.
    """
    seq, kind, packet = data.decode().split(" ", 2)
    return Message(epoch, int(seq), cast("Kind", kind), packet)


def parse_info(info: bytes | None, owner: bytes | None) -> JobInfo:
    """Parse the description of a job, and the field with its owner.

    Records of earlier versions have no description.
    """
    return decode_info(info or b"", None if owner is None else owner.decode())


def parse_line(epoch: str, entry: Any) -> Message:
    """Parse the log line of a stream entry."""
    _, (_, _, _, packet) = entry
    return Message(epoch, _seq(entry), LOG, packet.decode())


def seq_before(entry: Any) -> int:
    """Return the seq of the log line before a stream entry; 0 if it is the job's first."""
    _, (_, distance, _, _) = entry
    return _seq(entry) - int(distance)


def _seq(entry: Any) -> int:
    return int(entry[0].partition(b"-")[0])
