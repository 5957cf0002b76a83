"""Batches of messages that are encoded once for several connections of a kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engineio.packet import MESSAGE, Packet

from jobcast.events import INFO, PROGRESS, STATUS
from jobcast.transports.base import NO_RECORD, Message

ROOT: Final = "/"  # the default namespace, which packets do not name

_PREFIX: Final = '42["'  # the packet types, and the start of the array with the event's name

# The first byte of a WebSocket frame that contains a complete message.
_TEXT: Final = 0x81
_BINARY: Final = 0x82


class FrameBatch:
    """An ordered batch of messages, encoded once for all connections of a kind.

    Args:
        messages: the messages to send.
        job_id: the job that the messages belong to, or None. An unsent progress or info event of
            the job is replaced by a newer one.
        namespace: the Socket.IO namespace of the packets.
    """

    __slots__ = ("_events", "_frames", "_namespace", "_packets", "job_id", "messages")

    def __init__(
        self, messages: Sequence[Message], job_id: str | None = None, namespace: str = ROOT
    ) -> None:
        self.messages = messages
        self.job_id = job_id
        self._namespace = namespace
        # Computed on demand; functools.cached_property needs a __dict__, and takes a lock in 3.11.
        self._frames: bytes | None = None
        self._packets: list[Packet] | None = None
        self._events: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def size(self) -> int:
        """The size of all packets in characters."""
        return sum(len(message.packet) for message in self.messages)

    @property
    def texts(self) -> Sequence[str]:
        """The packets as Engine.IO messages."""
        if self._namespace == ROOT:
            return [message.packet for message in self.messages]
        # The first two characters are the packet types of Engine.IO and Socket.IO.
        return [f"42{self._namespace},{message.packet[2:]}" for message in self.messages]

    @property
    def frames(self) -> bytes:
        """The packets as WebSocket frames."""
        if self._frames is None:
            self._frames = b"".join([frame(text) for text in self.texts])
        return self._frames

    @property
    def packets(self) -> Sequence[Packet]:
        """The packets as python-engineio's packet objects."""
        if self._packets is None:
            self._packets = [Packet(MESSAGE, text[1:]) for text in self.texts]
        return self._packets

    @property
    def events(self) -> Sequence[bytes]:
        """The messages as the events of an event stream, without their ids and final lines."""
        if self._events is None:
            self._events = [event_lines(message.packet) for message in self.messages]
        return self._events

    @property
    def values(self) -> Sequence[str | None]:
        """The key of each message's value, or None.

        A packet with a key replaces an unsent packet with the same key.
        """
        return [
            self.job_id if message.kind == PROGRESS
            else f"{self.job_id} {INFO}" if message.kind == INFO
            else None
            for message in self.messages
        ]  # fmt: skip


def notice(packet: str) -> Message:
    """Return a packet that is not an event of a job as a message of a batch: it has no position."""
    return Message(NO_RECORD, 0, STATUS, packet)


def event_lines(packet: str) -> bytes:
    """Return a packet as lines of an event stream (WHATWG HTML, section 9.2).

    >>> event_lines('42["left",{"job_id":"42"}]')
    b'event: left\\ndata: {"job_id":"42"}\\n'
    """
    end = packet.index('"', len(_PREFIX))
    # A line break in JSON is only white space.
    data = packet[end + 2 : -1].replace("\r", " ").replace("\n", " ")
    return f"event: {packet[len(_PREFIX) : end]}\ndata: {data}\n".encode()


def frame(message: str | bytes) -> bytes:
    """Encode a message as an unmasked WebSocket frame (RFC 6455, section 5.2).

    >>> frame("hi")
    b'\\x81\\x02hi'
    """
    kind, payload = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
    length = len(payload)
    if length < 126:
        return bytes((kind, length)) + payload
    if length < 65536:
        return bytes((kind, 126)) + length.to_bytes(2, "big") + payload
    return bytes((kind, 127)) + length.to_bytes(8, "big") + payload
