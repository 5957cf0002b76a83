"""Load generator: many cheap Socket.IO clients in one process, which check their events.

python -m bench.fanout.load

Commands arrive on standard input and answers go to standard output, each a line of JSON:

``{"connect": {"url", "clients": [{"token", "job"}], "at_once": N}}``
    connects and joins the clients (``job`` null: no join), ``at_once`` of them at a time; answers
    with the seconds that this took.
``{"expect": {"events": N, "timeout": S}}``
    answers when every client has received N more events, or after S seconds, with the numbers of
    missing and misordered events, and the latencies of every tenth client in milliseconds.
``{"pings": {"count": N, "timeout": S}}``
    answers when the clients have answered N pings, or after S seconds, with the number of missing
    pings.
``{"reconnect": true}``
    closes all connections at once and opens them again; answers as for ``connect``.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

MARK = b'"line '
TIMEOUT = 120.0  # seconds


class Client(WSListener):
    """One connection. The message of an event has its number and the time of its publication."""

    def __init__(self, load: Load, token: str, job: str | None, *, timed: bool) -> None:
        super().__init__()
        self.load = load
        self.token = token
        self.job = job
        self.timed = timed
        self.next = 0
        self.disorder = 0
        self.ready = asyncio.get_running_loop().create_future()
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_disconnected(self, _: WSTransport) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("closed before it was ready"))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        at = payload.find(MARK)
        if at >= 0:
            self.handle_event(payload, at)
        elif frame.msg_type == WSMsgType.TEXT:
            self.handle_control(transport, payload)

    def handle_event(self, payload: bytes, at: int) -> None:
        number = int(payload[at + 6 : at + 13])
        if number != self.next:
            self.disorder += 1
        self.next = number + 1
        if self.timed:
            sent = int(payload[at + 17 : payload.index(b'"', at + 17)])
            self.load.latencies.append(time.monotonic_ns() - sent)
        self.load.count_event()

    def handle_control(self, transport: WSTransport, payload: bytes) -> None:
        if payload.startswith(b"0{"):
            transport.send(WSMsgType.TEXT, b"40" + json.dumps({"token": self.token}).encode())
        elif payload.startswith(b"40{"):
            if self.job is None:
                self.set_ready()
            else:
                request = json.dumps(["join_job", {"job_id": self.job}])
                transport.send(WSMsgType.TEXT, b"420" + request.encode())
        elif payload.startswith(b"430"):
            if b'"ok":true' not in payload:
                raise RuntimeError(payload)
            self.set_ready()
        elif payload == b"2":
            transport.send(WSMsgType.TEXT, b"3")
            self.load.count_ping()
        elif payload.startswith(b"44"):
            raise RuntimeError(payload)

    def set_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)


class Load:
    """All clients, and the progress of the present command."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.latencies: list[int] = []
        self.count = 0
        self.expected = 0
        self.complete = asyncio.Event()
        self.pings = 0
        self.pings_expected = 0
        self.pings_complete = asyncio.Event()
        self.options: dict[str, Any] = {}

    def count_event(self) -> None:
        self.count += 1
        if self.count == self.expected:
            self.complete.set()

    def count_ping(self) -> None:
        self.pings += 1
        if self.pings == self.pings_expected:
            self.pings_complete.set()

    async def connect(self, options: dict[str, Any]) -> dict[str, Any]:
        self.options = options
        began = time.monotonic()
        limit = asyncio.Semaphore(options["at_once"])

        async def connect_one(number: int, client_options: dict[str, Any]) -> Client:
            async with limit, asyncio.timeout(TIMEOUT):
                client = Client(
                    self, client_options["token"], client_options["job"], timed=number % 10 == 0
                )
                await ws_connect(
                    lambda: client, options["url"], websocket_handshake_timeout=TIMEOUT
                )
                await client.ready
                return client

        tasks = [connect_one(*numbered) for numbered in enumerate(options["clients"])]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        self.clients = [answer for answer in answers if isinstance(answer, Client)]
        return {
            "seconds": time.monotonic() - began,
            "failed": len(failed),
            "why": repr(failed[0]) if failed else "",
        }

    async def expect(self, options: dict[str, Any]) -> dict[str, Any]:
        self.expected = options["events"] * len(self.clients)
        if self.count < self.expected:
            await _wait(self.complete, options["timeout"])
        missing = self.expected - self.count
        ended = time.monotonic_ns()
        answer = {
            "missing": missing,
            "disorder": sum(client.disorder for client in self.clients),
            "latencies": [latency / 1e6 for latency in self.latencies],
            "ended": ended,
        }
        self.count, self.latencies = 0, []
        for client in self.clients:
            client.next = 0
        return answer

    async def expect_pings(self, options: dict[str, Any]) -> dict[str, Any]:
        self.pings_expected = options["count"]
        if self.pings < self.pings_expected:
            await _wait(self.pings_complete, options["timeout"])
        return {"missing": max(0, self.pings_expected - self.pings)}

    async def reconnect(self, _: object) -> dict[str, Any]:
        for client in self.clients:
            if client.transport is not None:
                client.transport.disconnect(graceful=False)
        return await self.connect({**self.options, "at_once": len(self.clients)})


async def _wait(event: asyncio.Event, timeout: float) -> None:
    """Wait for the next time that an event is set, at most ``timeout`` seconds."""
    event.clear()
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            await event.wait()


async def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    load = Load()
    commands: dict[str, Callable[[Any], Awaitable[dict[str, Any]]]] = {
        "connect": load.connect,
        "expect": load.expect,
        "pings": load.expect_pings,
        "reconnect": load.reconnect,
    }
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        [(name, value)] = json.loads(line).items()
        print(json.dumps(await commands[name](value)), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
