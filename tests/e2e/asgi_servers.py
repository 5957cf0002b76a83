"""The Socket.IO process under several ASGI servers, and low-level test clients."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.e2e.raw import RawClient
from tests.support import LOG_CONFIG, NO_WEBSOCKET_PINGS, TIMEOUT, Server

APP = "tests.paths:create_app"
UVICORN = ("uvicorn", "--factory", APP, "--log-config", LOG_CONFIG, *NO_WEBSOCKET_PINGS)

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "uvicorn-sansio": (*UVICORN, "--ws", "websockets-sansio", "--ws-per-message-deflate", "false"),
    "uvicorn-wsproto": (*UVICORN, "--ws", "wsproto"),
    "hypercorn": ("hypercorn", "--worker-class", "asyncio", f"{APP}()",
                  "--log-config", f"json:{LOG_CONFIG}"),
    "granian": ("granian", "--interface", "asgi", "--factory", APP),
}  # fmt: skip
#: The servers under which jobcast writes frames directly to the transport.
DIRECT = frozenset({"uvicorn-sansio"})


class AsgiServer(Server):
    """The application of ``tests/paths.py`` under one of ``COMMANDS``."""

    def __init__(
        self, log_path: Path, transport: str, name: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.direct = name in DIRECT
        self._command = COMMANDS[name]
        super().__init__(log_path, transport, {"JOBCAST_METRICS": "true", **(env or {})})

    def start(self) -> None:
        address = (
            ("--bind", f"127.0.0.1:{self.port}")
            if self.name == "hypercorn"
            else ("--port", str(self.port))
        )
        self.argv = [sys.executable, "-m", *self._command, *address]
        super().start()

    async def metric(self, name: str) -> float:
        """Return the value of a metric from ``/metrics``."""
        page = await self._get("/metrics")
        found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
        assert found is not None, page
        return float(found[1])

    async def paths(self) -> dict[str, int]:
        """Return the counters of ``tests/paths.py``."""
        counts: dict[str, int] = json.loads(await self._get("/paths"))
        return counts

    async def wait_for_metric(self, name: str, value: float) -> None:
        """Wait until a metric has the given value."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                if await self.metric(name) == value:
                    return
                await asyncio.sleep(0.05)

    async def wait_until_empty(self) -> None:
        """Wait until the server has released every connection."""
        await self.wait_for_metric("jobcast_connections", 0)
        await self.wait_for_metric("jobcast_jobs_followed", 0)
        async with asyncio.timeout(TIMEOUT):
            while True:
                if not any((await self.paths()).values()):
                    return
                await asyncio.sleep(0.05)

    @property
    def peak_memory(self) -> int:
        """The peak memory in bytes of the server's process and its children."""
        parent = psutil.Process(self.popen.pid)
        processes = [parent, *parent.children(recursive=True)]
        pages = [Path(f"/proc/{process.pid}/status").read_text() for process in processes]
        return sum(int(page.partition("VmHWM:")[2].split()[0]) * 1024 for page in pages)

    async def _get(self, path: str) -> str:
        def read() -> str:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as response:
                return str(response.read().decode())

        return await asyncio.to_thread(read)


class InvalidDataClient(RawClient):
    """A client that can send invalid data."""

    async def send_binary(self, data: bytes) -> None:
        self._protocol.send_binary(data)
        await self._flush()

    async def send_text(self, data: bytes) -> None:
        """Send a text frame, which need not be valid UTF-8."""
        self._protocol.send_text(data)
        await self._flush()

    async def write(self, data: bytes) -> None:
        """Write bytes, which need not be valid frames."""
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def wait_until_closed(self, timeout: float = TIMEOUT) -> None:
        """Read until the server closes the connection, with or without an Engine.IO packet."""
        async with asyncio.timeout(timeout):
            try:
                await self.read_until(lambda packet: packet == "1")
            except ConnectionError:
                return


@asynccontextmanager
async def invalid_data_client(url: str, token: str) -> AsyncIterator[InvalidDataClient]:
    client = InvalidDataClient(url)
    try:
        await client.connect(token)
        yield client
    finally:
        client.close()


class UpgradingClient:
    """A client that starts with long-polling and upgrades on request, like the JavaScript client.

    python-socketio's client upgrades before it sends anything, so no event can come in between.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = f"{url}/socket.io/"
        self._session = session
        self._query = {"EIO": "4", "transport": "polling"}
        self._polling: asyncio.Task[None] | None = None
        self._paused = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.packets: list[str] = []
        self.event_count = 0
        self.upgraded_after = 0  # packets

    async def connect(self, token: str) -> None:
        await self._poll()
        self._query["sid"] = json.loads(self.packets[0][1:])["sid"]
        await self.send(f"40{json.dumps({'token': token})}")
        self._polling = asyncio.create_task(self._poll_repeatedly())

    async def send(self, packet: str) -> None:
        if self._socket is not None:
            await self._socket.send_str(packet)
            return
        async with self._session.post(self._url, params=self._query, data=packet) as answer:
            assert answer.status == 200, await answer.text()

    async def probe(self) -> None:
        """Start the upgrade. A poll may be pending."""
        query = {**self._query, "transport": "websocket"}
        url = self._url.replace("http", "ws", 1)
        self.probed = await self._session.ws_connect(url, params=query)
        await self.probed.send_str("2probe")
        assert await self.probed.receive_str(timeout=TIMEOUT) == "3probe"

    async def upgrade(self) -> None:
        """Read the pending poll to its end, then switch to the WebSocket."""
        assert self._polling is not None
        self._paused = True
        async with asyncio.timeout(TIMEOUT):
            await self._polling
        self.upgraded_after = len(self.packets)
        await self.probed.send_str("5")
        self._socket = self.probed
        self._polling = asyncio.create_task(self._read_websocket(self.probed))

    async def close(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    def events(self, name: str) -> list[dict[str, Any]]:
        found = [json.loads(packet[2:]) for packet in self.packets if packet.startswith("42[")]
        return [payload for event, payload in found if event == name]

    async def _poll_repeatedly(self) -> None:
        while not self._paused:
            await self._poll()

    async def _poll(self) -> None:
        async with self._session.get(self._url, params=self._query) as answer:
            body = await answer.text()
            assert answer.status == 200, body
            for packet in body.split("\x1e"):
                await self._handle_packet(packet)

    async def _read_websocket(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            await self._handle_packet(message.data)

    async def _handle_packet(self, packet: str) -> None:
        self.packets.append(packet)
        self.event_count += packet.startswith("42[")
        if packet == "2":
            await self.send("3")


@asynccontextmanager
async def upgrading_client(url: str, token: str) -> AsyncIterator[UpgradingClient]:
    async with aiohttp.ClientSession() as session:
        client = UpgradingClient(url, session)
        try:
            await client.connect(token)
            yield client
        finally:
            await client.close()
