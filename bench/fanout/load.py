"""Many Socket.IO clients in one process, which check what they receive and cost little themselves.

python -m bench.fanout.load

Commands come on standard input and answers go back, each a line of JSON:

``{"connect": {"url", "clients": [{"token", "job"}], "at_once": N}}``
    connects and joins (``job`` null: stays idle); answers when all have, with the seconds it took.
``{"expect": {"events": N, "timeout": S}}``
    answers when every client has got N more events, or after S seconds, with what was missing or
    out of order and, of every tenth client, the latencies in milliseconds.
``{"pings": {"count": N, "timeout": S}}``
    answers when so many pings of the server have been answered, with how many are missing.
``{"reconnect": true}``
    closes all connections at once and opens them again.
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
    """One connection. Its events say in their text what number they have, and when that was."""

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
            self.event(payload, at)
        elif frame.msg_type == WSMsgType.TEXT:
            self.control(transport, payload)

    def event(self, payload: bytes, at: int) -> None:
        number = int(payload[at + 6 : at + 13])
        if number != self.next:
            self.disorder += 1
        self.next = number + 1
        if self.timed:
            sent = int(payload[at + 17 : payload.index(b'"', at + 17)])
            self.load.latencies.append(time.monotonic_ns() - sent)
        self.load.received()

    def control(self, transport: WSTransport, payload: bytes) -> None:
        if payload.startswith(b"0{"):
            transport.send(WSMsgType.TEXT, b"40" + json.dumps({"token": self.token}).encode())
        elif payload.startswith(b"40{"):
            if self.job is None:
                self.done()
            else:
                request = json.dumps(["join_job", {"job_id": self.job}])
                transport.send(WSMsgType.TEXT, b"420" + request.encode())
        elif payload.startswith(b"430"):
            if b'"ok":true' not in payload:
                raise RuntimeError(payload)
            self.done()
        elif payload == b"2":
            transport.send(WSMsgType.TEXT, b"3")
            self.load.pinged()
        elif payload.startswith(b"44"):
            raise RuntimeError(payload)

    def done(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)


class Load:
    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.latencies: list[int] = []
        self.count = 0
        self.wanted = 0
        self.complete = asyncio.Event()
        self.pings = 0
        self.pings_wanted = 0
        self.pings_complete = asyncio.Event()
        self.options: dict[str, Any] = {}

    def received(self) -> None:
        self.count += 1
        if self.count == self.wanted:
            self.complete.set()

    def pinged(self) -> None:
        self.pings += 1
        if self.pings == self.pings_wanted:
            self.pings_complete.set()

    async def connect(self, options: dict[str, Any]) -> dict[str, Any]:
        self.options = options
        began = time.monotonic()
        some = asyncio.Semaphore(options["at_once"])

        async def one(number: int, wanted: dict[str, Any]) -> Client:
            async with some, asyncio.timeout(TIMEOUT):
                client = Client(self, wanted["token"], wanted["job"], timed=number % 10 == 0)
                await ws_connect(
                    lambda: client, options["url"], websocket_handshake_timeout=TIMEOUT
                )
                await client.ready
                return client

        tasks = [one(number, wanted) for number, wanted in enumerate(options["clients"])]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        self.clients = [answer for answer in answers if isinstance(answer, Client)]
        return {
            "seconds": time.monotonic() - began,
            "failed": len(failed),
            "why": repr(failed[0]) if failed else "",
        }

    async def expect(self, options: dict[str, Any]) -> dict[str, Any]:
        self.wanted = options["events"] * len(self.clients)
        if self.count < self.wanted:
            await _bounded(self.complete, options["timeout"])
        missing = self.wanted - self.count
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
        self.pings_wanted = options["count"]
        if self.pings < self.pings_wanted:
            await _bounded(self.pings_complete, options["timeout"])
        return {"missing": max(0, self.pings_wanted - self.pings)}

    async def reconnect(self, _: object) -> dict[str, Any]:
        for client in self.clients:
            if client.transport is not None:
                client.transport.disconnect(graceful=False)
        return await self.connect({**self.options, "at_once": len(self.clients)})


async def _bounded(event: asyncio.Event, timeout: float) -> None:
    """Wait until it is set anew; if it is not, whoever asks counts what is missing."""
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
