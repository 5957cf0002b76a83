"""Socket.IO packets that go to several connections: encoded and framed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engineio.packet import MESSAGE, Packet

ROOT: Final = "/"  # the namespace that packets say nothing of

# The first byte of a WebSocket frame that is a whole message.
_TEXT: Final = 0x81
_BINARY: Final = 0x82


class FrameBatch:
    """Ready packets (``42[...]``) in order.

    Args:
        packets: what to send.
        values: for each packet, what it is the newest value of: an older one of the same that was
            not sent yet need not be. None for what has to be sent; nothing for a batch of those.
        namespace: that the packets are for.
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
        # Made when somebody needs them; functools.cached_property takes a lock for it.
        self._frames: bytes | None = None
        self._packets: list[Packet] | None = None

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def size(self) -> int:
        """Characters of the packets."""
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
        """What a WebSocket carries of them."""
        if self._frames is None:
            self._frames = b"".join([frame(text) for text in self.texts])
        return self._frames

    @property
    def packets(self) -> Sequence[Packet]:
        """As python-engineio queues them."""
        if self._packets is None:
            self._packets = [Packet(MESSAGE, text[1:]) for text in self.texts]
        return self._packets

    @property
    def values(self) -> Sequence[str | None]:
        return self._values or [None] * len(self._texts)


def frame(message: str | bytes) -> bytes:
    """A message as an unmasked WebSocket frame, as servers send it (RFC 6455, section 5.2)."""
    kind, payload = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
    length = len(payload)
    if length < 126:
        return bytes((kind, length)) + payload
    if length < 65536:
        return bytes((kind, 126)) + length.to_bytes(2, "big") + payload
    return bytes((kind, 127)) + length.to_bytes(8, "big") + payload
