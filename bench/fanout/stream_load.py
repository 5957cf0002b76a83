"""Cheap HTTP clients of the load generator: readers of event streams, and pollers."""

from __future__ import annotations

import asyncio
import re
from typing import Final, cast

from bench.fanout.follower import Follower

EVENT: Final = re.compile(rb'"line (\d{7}) at (\d+)"')
OK: Final = b"HTTP/1.1 200"
HEAD_END: Final = b"\r\n\r\n"


class StreamClient(asyncio.Protocol):
    """One event stream. The message of an event has its number and the time of its publication."""

    def __init__(self, follower: Follower, token: str, job: str) -> None:
        self.follower = follower
        self._request = request_for(f"/jobs/{job}/events", token)
        self._transport: asyncio.Transport | None = None
        self._rest = b""  # an incomplete event

    def disconnect(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def connection_lost(self, _: Exception | None) -> None:
        self.follower.set_failed(ConnectionError("closed before it was ready"))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self.follower.ready.done():
            self._read_head(data)
        end = data.rfind(b"\n\n") + 2
        for match in EVENT.finditer(data, 0, end):
            self.follower.handle_event(int(match[1]), int(match[2]))
        self._rest = data[end:] if end > 1 else data

    def _read_head(self, data: bytes) -> None:
        """Wait for the first bytes after the head: the server has joined the job then."""
        _, found, body = data.partition(HEAD_END)
        if found and not data.startswith(OK):
            self.follower.set_failed(RuntimeError(data))
        elif body:
            self.follower.set_ready()


async def open_stream(follower: Follower, port: int, token: str, job: str) -> StreamClient:
    """Open an event stream of a job."""
    client = StreamClient(follower, token, job)
    await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    return client


async def poll(port: int, requests: int, token: str, job: str) -> None:
    """Request the state of a job repeatedly on one connection.

    Raises:
        RuntimeError: the server refused a request.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in range(requests):
            writer.write(request_for(f"/jobs/{job}", token))
            head = await reader.readuntil(HEAD_END)
            if not head.startswith(OK):
                raise RuntimeError(head)
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            assert length is not None, head
            await reader.readexactly(int(length[1]))
    finally:
        writer.close()


def request_for(path: str, token: str) -> bytes:
    """Return a GET request with a token."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
