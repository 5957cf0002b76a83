"""Load generator: many cheap clients in one process, which check their events.

python -m bench.fanout.load

Commands arrive on standard input and answers go to standard output, each a line of JSON:

``{"connect": {"kind": "socketio", "port", "clients": [{"token", "job"}], "at_once": N}}``
    connects and joins the clients (``job`` null: no join), ``at_once`` of them at a time; answers
    with the seconds that this took. The kind ``sse`` opens event streams instead.
``{"expect": {"events": N, "timeout": S}}``
    answers when every client has received N more events, or after S seconds, with the numbers of
    missing and misordered events, and the latencies of every tenth client in milliseconds.
``{"pings": {"count": N, "timeout": S}}``
    answers when the clients have answered N pings, or after S seconds, with the number of missing
    pings.
``{"poll": {"port", "clients": [{"token", "job"}], "requests": N}}``
    makes N requests for the state of each client's job, one after the other on one connection a
    client; answers with the seconds that this took.
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
from typing import Any, Final, Protocol

import uvloop

from bench.fanout.follower import Follower
from bench.fanout.socketio_load import open_socket
from bench.fanout.stream_load import open_stream, poll

TIMEOUT: Final = 120.0  # seconds


class Client(Protocol):
    """A connection of one client."""

    follower: Follower

    def disconnect(self) -> None:
        """Close the connection at once."""


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
                latencies = self.latencies if number % 10 == 0 else None
                follower = Follower(self.count_event, latencies)
                client = await self._open(follower, options, client_options)
                await follower.ready
                return client

        tasks = [connect_one(*numbered) for numbered in enumerate(options["clients"])]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        self.clients = [answer for answer in answers if not isinstance(answer, BaseException)]
        return {
            "seconds": time.monotonic() - began,
            "failed": len(failed),
            "why": repr(failed[0]) if failed else "",
        }

    async def _open(
        self, follower: Follower, options: dict[str, Any], client_options: dict[str, Any]
    ) -> Client:
        token, job, port = client_options["token"], client_options["job"], options["port"]
        if options["kind"] == "sse":
            return await open_stream(follower, port, token, job)
        return await open_socket(follower, port, token, job, self.count_ping)

    async def poll(self, options: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        polls = (poll(options["port"], options["requests"], **c) for c in options["clients"])
        await asyncio.gather(*polls)
        return {"seconds": time.monotonic() - began}

    async def expect(self, options: dict[str, Any]) -> dict[str, Any]:
        self.expected = options["events"] * len(self.clients)
        if self.count < self.expected:
            await _wait(self.complete, options["timeout"])
        missing = self.expected - self.count
        ended = time.monotonic_ns()
        answer = {
            "missing": missing,
            "disorder": sum(client.follower.disorder for client in self.clients),
            "latencies": [latency / 1e6 for latency in self.latencies],
            "ended": ended,
        }
        self.count = 0
        self.latencies.clear()
        for client in self.clients:
            client.follower.next = 0
        return answer

    async def expect_pings(self, options: dict[str, Any]) -> dict[str, Any]:
        self.pings_expected = options["count"]
        if self.pings < self.pings_expected:
            await _wait(self.pings_complete, options["timeout"])
        return {"missing": max(0, self.pings_expected - self.pings)}

    async def reconnect(self, _: object) -> dict[str, Any]:
        for client in self.clients:
            client.disconnect()
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
        "poll": load.poll,
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
