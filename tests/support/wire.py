"""A raw TCP connection and a raw WebSocket; the caller chooses every byte."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

UNMASKED_KEY: Final = bytes(4)  # a mask of zeros leaves the payload as it is and costs no CPU time
ENGINE_PATH: Final = "/socket.io/?EIO=4&transport=websocket"
SMALL_WINDOW: Final = 64 * 1024  # bytes in a kernel buffer

_ENDED: Final = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class Gone(ConnectionError):
    """The server closed the connection, or refused it."""


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0
) -> bytes:
    """Return a client's WebSocket frame, valid or not."""
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    mask_bit, length = (0x80 if masked else 0), len(payload)
    if length < 126:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length < 65536:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    return head + (UNMASKED_KEY if masked else b"") + payload


def text(packet: str) -> bytes:
    """Return a frame with an Engine.IO packet."""
    return frame(TEXT, packet.encode())


def event(name: str, *payload: Any, ack: int | str = "") -> bytes:
    """Return a frame with a Socket.IO event."""
    return text(f"42{ack}{json.dumps([name, *payload])}")


def filled(piece: bytes, size: int = 64 * 1024) -> bytes:
    """Return as many copies of ``piece`` as fit into one large write."""
    return piece * max(1, size // len(piece))


def request(
    method: str, path: str, *, host: str = "127.0.0.1", headers: str = "", body: bytes = b""
) -> bytes:
    """Return an HTTP request. ``headers`` are lines that end with CRLF."""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode() + body


def upgrade(path: str = ENGINE_PATH, *, host: str = "127.0.0.1", headers: str = "") -> bytes:
    """Return the request that opens a WebSocket."""
    return request(
        "GET", path, host=host,
        headers=(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}"
        ),
    )  # fmt: skip


def post(path: str, body: bytes) -> bytes:
    """Return a long-polling client's request that sends packets."""
    headers = f"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {len(body)}\r\n"
    return request("POST", path, headers=headers, body=body)


class Wire:
    """A TCP connection to the server.

    Args:
        url: the URL of the server, such as ``http://127.0.0.1:8000``.
        window: size of the kernel's receive buffer in bytes; 0 selects the kernel's default.
        source: the local address of the connection.
    """

    def __init__(self, url: str, *, window: int = 0, source: str = "") -> None:
        address = urlsplit(url)
        self._peer = address.hostname or "127.0.0.1", address.port or 80
        self._socket = socket.socket()
        self._socket.setblocking(False)
        # With a small send buffer, the bytes sent are nearly the bytes that the server has read.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_WINDOW)
        if window:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        if source:
            self._socket.bind((source, 0))
        self.unread = b""  # received bytes that the next read returns
        self.sent = self.received = 0

    async def open(self) -> Self:
        """Connect.

        Raises:
            Gone: the server does not listen.
        """
        try:
            await asyncio.get_running_loop().sock_connect(self._socket, self._peer)
        except OSError as exc:
            raise Gone(repr(exc)) from exc
        return self

    async def __aenter__(self) -> Self:
        try:
            return await self.open()
        except BaseException:
            self.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        self._socket.close()

    def reset(self) -> None:
        """Close the connection with RST instead of FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def end_sending(self) -> None:
        """Close the sending side of the connection only."""
        self._socket.shutdown(socket.SHUT_WR)

    @property
    def ended(self) -> bool:
        """Whether the server has closed the connection. Reads nothing."""
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, _ENDED)
        return bool(poll.poll(0))

    async def send(self, data: bytes) -> None:
        """Send all data.

        Raises:
            Gone: the server has closed the connection.
        """
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except OSError as exc:
            raise Gone(repr(exc)) from exc
        self.sent += len(data)

    async def read(self, most: int = 256 * 1024) -> bytes:
        """Return received data, or wait for some.

        Raises:
            Gone: the server has closed the connection.
        """
        if self.unread:
            data, self.unread = self.unread, b""
            return data
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, most)
        except OSError as exc:
            raise Gone(repr(exc)) from exc
        if not data:
            raise Gone("end of the stream")
        self.received += len(data)
        return data

    async def read_head(self) -> str:
        """Read the head of an HTTP response, and keep the rest for the next read."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self.read()
        head, _, self.unread = data.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    async def read_response(self) -> tuple[int, bytes]:
        """Read an HTTP response, and return its status and body."""
        head = await self.read_head()
        status = int(head.split(" ", 2)[1])
        fields = dict(
            line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
        )
        body = b""
        if "content-length" in fields:
            length = int(fields["content-length"])
            while len(body) < length:
                body += await self.read()
            body, self.unread = body[:length], body[length:]
        elif fields.get("transfer-encoding") == "chunked":
            while chunk := await self.read_chunk():
                body += chunk
        return status, body

    async def read_chunk(self) -> bytes:
        """Read one chunk of a response; the last chunk is empty."""
        data = b""
        while b"\r\n" not in data:
            data += await self.read()
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        while len(data) < length + 2:
            data += await self.read()
        self.unread = data[length + 2 :]
        return data[:length]

    async def closed_by_server(self) -> None:
        """Wait until the server has closed the connection, without reading."""
        while not self.ended:
            await asyncio.sleep(0.02)

    async def read_to_the_end(self) -> bytes:
        """Read until the server has closed the connection."""
        data = bytearray()
        while True:
            try:
                data += await self.read()
            except Gone:
                return bytes(data)


class WebSocket(Wire):
    """A WebSocket client that masks with zeros and sends nothing on its own."""

    def __init__(self, url: str, *, window: int = 0, source: str = "") -> None:
        super().__init__(url, window=window, source=source)
        self._partial = bytearray()
        self.packets: list[str] = []  # Engine.IO packets read so far
        self._received_close = False
        self.keeps = True  # store packets; off for floods, which would fill the memory

    async def handshake(self, path: str = ENGINE_PATH, headers: str = "") -> Self:
        """Open the WebSocket.

        Raises:
            Gone: the server refused the handshake; the message is the status line.
        """
        await self.send(upgrade(path, headers=headers))
        head = await self.read_head()
        if " 101 " not in head.splitlines()[0]:
            raise Gone(head.splitlines()[0])
        return self

    async def greet(self, token: str) -> Self:
        """Open the WebSocket and authenticate.

        Raises:
            Gone: the server refused the handshake or the token.
        """
        await self.handshake()
        await self.send(text(f"40{json.dumps({'token': token})}"))
        answer = await self.read_until("40", "44")
        if answer.startswith("44"):
            raise Gone(answer)
        return self

    async def read_until(self, *prefixes: str) -> str:
        """Read up to an Engine.IO packet with one of the prefixes, and return that packet."""
        while True:
            for packet in await self.read_packets():
                if packet.startswith(prefixes):
                    return packet

    async def ask(self, name: str, payload: Any) -> dict[str, Any]:
        """Send a request, read up to its answer, and return the answer."""
        await self.send(event(name, payload, ack=7))
        packet = await self.read_until("437")
        [answer] = json.loads(packet[3:])
        return dict(answer)

    async def read_packets(self) -> list[str]:
        """Read packets without answering them.

        Raises:
            Gone: the server has closed the connection or has sent a close frame.
        """
        if self._received_close:
            raise Gone("close frame")
        self._partial += await self.read()
        packets: list[str] = []
        for opcode, payload in _frames(self._partial):
            self._received_close = self._received_close or opcode == CLOSE
            if opcode == TEXT:
                packets.append(payload.decode())
        if self.keeps:
            self.packets += packets
        return packets

    async def read_until_closed(self) -> None:
        """Read until the server closes the connection or the Engine.IO session."""
        with suppress(Gone):
            while "1" not in await self.read_packets():
                continue


def _frames(data: bytearray) -> Iterator[tuple[int, bytes]]:
    """Remove complete frames of the server from the front of ``data``, and yield them."""
    while len(data) >= 2:
        length, start = data[1] & 0x7F, 2
        if length == 126:
            length, start = int.from_bytes(data[2:4]), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10]), 10
        if len(data) < start or len(data) < start + length:
            return
        opcode, payload = data[0] & 0x0F, bytes(data[start : start + length])
        del data[: start + length]
        yield opcode, payload
