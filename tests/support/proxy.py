"""A TCP proxy that resets, cuts or holds the connections through it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

CHUNK: Final = 64 * 1024  # bytes


class Link:
    """The connection of one client through a proxy.

    Args:
        client: writes to the client.
        server: writes to the server.
        hold_after: the bytes from the server after which the link stops forwarding.
    """

    def __init__(
        self,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        hold_after: int | None = None,
    ) -> None:
        self._writers = client, server
        self._hold_after = hold_after
        self._cut_at: float | None = None
        self.held = asyncio.Event()
        self._forwarding = asyncio.Event()
        self._forwarding.set()
        self.closed = asyncio.Event()

    async def cut_in_frame(self, fraction: float, timeout: float) -> None:
        """Reset the connection after a fraction of the server's next chunk."""
        self._cut_at = fraction
        try:
            async with asyncio.timeout(timeout):
                await self.closed.wait()
        except TimeoutError:
            self.reset()

    def drop_answers(self) -> None:
        """Reset the connection at the server's next answer, before the client receives it."""
        self._cut_at = 0.0

    def hold(self) -> None:
        """Stop forwarding, and keep both connections open."""
        self._forwarding.clear()
        self.held.set()

    def resume(self) -> None:
        """Forward again what the link has held."""
        self._hold_after = None
        self._forwarding.set()

    def reset(self) -> None:
        for writer in self._writers:
            reset(writer)
        self._forwarding.set()
        self.closed.set()

    async def run(self, client: asyncio.StreamReader, server: asyncio.StreamReader) -> None:
        upstream = asyncio.create_task(self._pump(client, self._writers[1]))
        downstream = asyncio.create_task(self._pump(server, self._writers[0], can_cut=True))
        try:
            await asyncio.wait({upstream, downstream}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (upstream, downstream):
                task.cancel()
            await asyncio.gather(upstream, downstream, return_exceptions=True)
            for writer in self._writers:
                writer.close()
            self.closed.set()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, can_cut: bool = False
    ) -> None:
        try:
            while chunk := await reader.read(CHUNK):
                await self._forwarding.wait()
                if can_cut and self._hold_after is not None:
                    chunk = await self._write_before_hold(writer, chunk, self._hold_after)
                if can_cut and self._cut_at is not None:
                    # The proxy does not drain the last write, so that a part of the frame is lost.
                    writer.write(chunk[: int(len(chunk) * self._cut_at)])
                    self.reset()
                    return
                writer.write(chunk)
                await writer.drain()
        except OSError:
            # The other side gets a reset, too.
            self.reset()

    async def _write_before_hold(
        self, writer: asyncio.StreamWriter, chunk: bytes, remaining: int
    ) -> bytes:
        """Write the bytes before the link holds. Return the others once it has resumed."""
        writer.write(chunk[:remaining])
        self._hold_after = max(0, remaining - len(chunk))
        if not self._hold_after:
            self.hold()
            await self._forwarding.wait()
        return chunk[remaining:]


class Proxy:
    """A proxy in front of a server.

    Args:
        hold_after: the bytes from the server after which each connection is held.
    """

    def __init__(self, hold_after: int | None = None) -> None:
        self._hold_after = hold_after
        self.target: int | None = None  # the server's port; None refuses connections
        self.links: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def reset_all(self) -> int:
        links = list(self.links)
        for link in links:
            link.reset()
        return len(links)

    async def aclose(self) -> None:
        self._listener.close()
        self.reset_all()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection("127.0.0.1", self.target or 0)
        except OSError:
            reset(writer)
            return
        link = Link(writer, server[1], self._hold_after)
        self.links.append(link)
        try:
            await link.run(reader, server[0])
        finally:
            self.links.remove(link)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST, which discards unsent data."""
    if not writer.transport.is_closing():
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
