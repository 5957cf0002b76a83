"""Batches of Socket.IO packets that are encoded and framed once for several connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engineio.packet import MESSAGE, Packet

ROOT: Final = "/"  # the default namespace, which packets do not name

# The first byte of a WebSocket frame that contains a complete message.
_TEXT: Final = 0x81
_BINARY: Final = 0x82


class FrameBatch:
    """An ordered batch of encoded packets (``42[...]``).

    Args:
        packets: the packets to send.
        values: for each packet, the key of the value that it updates, or None. A packet with a key
            replaces an unsent packet with the same key. Empty if no packet has a key.
        namespace: the namespace of the packets.
    """

    __slots__ = ("_frames", "_namespace", "_packets", "_texts", "_values")

    def __init__(
        self,
        packets: Sequence[str],
        values: Sequence[str | None] = (),
        namespace: str = ROOT,
    ) -> None:
        self._texts = packets
        self._values = values
        self._namespace = namespace
        # Computed on demand; functools.cached_property needs a __dict__, and takes a lock in 3.11.
        self._frames: bytes | None = None
        self._packets: list[Packet] | None = None

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def size(self) -> int:
        """The size of all packets in characters."""
        return sum(map(len, self._texts))

    @property
    def texts(self) -> Sequence[str]:
        """The packets as Engine.IO messages."""
        if self._namespace == ROOT:
            return self._texts
        # The first two characters are the packet types of Engine.IO and Socket.IO.
        return [f"42{self._namespace},{packet[2:]}" for packet in self._texts]

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
    def values(self) -> Sequence[str | None]:
        """The key of each packet's value, or None."""
        return self._values or [None] * len(self._texts)


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
