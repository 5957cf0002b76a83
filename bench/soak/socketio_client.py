"""A stock Socket.IO client that reconnects."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
import socketio
from aiohttp.connector import Connection as HttpConnection
from aiohttp.tracing import Trace
from socketio.exceptions import SocketIOError

from bench.soak.client import Client
from bench.soak.followed_job import FollowedJob
from bench.soak.transcript import Join

CONNECT_TIMEOUT: Final = 10.0  # seconds
ANSWER_TIMEOUT: Final = 20.0  # seconds


class ClosingConnector(aiohttp.TCPConnector):
    """Connector that closes all connections that it has opened.

    Engine.IO's client does not close connections that end or time out during the handshake.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opened: list[HttpConnection] = []

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> HttpConnection:
        connection = await super().connect(req, traces, timeout)
        self._opened.append(connection)
        return connection

    def close(self, **options: bool) -> Coroutine[Any, Any, None]:  # older ones have no option
        for connection in self._opened:
            connection.close()
        return super().close(**options)


@asynccontextmanager
async def stock_connection(
    url: str,
    token: str,
    receive: Callable[[socketio.AsyncClient, str, Any], Awaitable[None]],
    handle_disconnect: Callable[[socketio.AsyncClient], Awaitable[None]],
) -> AsyncIterator[socketio.AsyncClient]:
    """Connect a stock client that does not reconnect.

    Args:
        url: the server.
        token: the token of the connection.
        receive: called with the client, and the name and the payload of each event.
        handle_disconnect: called with the client when the connection ends.

    Raises:
        SocketIOError, OSError, TimeoutError: the connection failed.
    """

    async def received(name: str, data: Any = None) -> None:
        await receive(sio, name, data)

    async def disconnected(*_: Any) -> None:
        await handle_disconnect(sio)

    # Engine.IO leaves its own session open when a connection is refused. A session closed in
    # ``finally`` stays open when the client is cancelled again while it disconnects.
    async with aiohttp.ClientSession(connector=ClosingConnector()) as http:
        sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=http)
        sio.on("*", received)
        sio.on("disconnect", disconnected)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await sio.connect(
                    url, auth={"token": token}, transports=["websocket"],
                    wait_timeout=CONNECT_TIMEOUT,
                )  # fmt: skip
            if not sio.connected or sio.eio.state != "connected":
                raise socketio.exceptions.DisconnectedError
            yield sio
        finally:
            with suppress(TimeoutError, SocketIOError, OSError):
                async with asyncio.timeout(5):
                    await sio.disconnect()


class SocketIOClient(Client):
    """A stock Socket.IO client."""

    def __init__(
        self, name: str, token: str, urls: Sequence[str], rng: random.Random, counts: Counter[str],
        *, leave_probability: float = 0.7,
    ) -> None:  # fmt: skip
        super().__init__(name, token, urls, rng, counts, leave_probability=leave_probability)
        self._disconnected = asyncio.Event()
        self._sio: socketio.AsyncClient | None = None
        self._connected = False
        self._joins: set[asyncio.Task[None]] = set()

    def _start(self, followed: FollowedJob) -> None:
        if self._connected:
            delay = self._rng.choice((0.0, 0.0, self._rng.uniform(0, 2)))
            self._start_join(followed, delay)

    async def run(self) -> None:
        while True:
            self._disconnected.clear()
            try:
                await self._stay_connected(self._rng.choice(self._urls))
            except (SocketIOError, OSError, TimeoutError):
                self._counts["connections refused or closed at once"] += 1
            await asyncio.sleep(self._rng.uniform(0.02, 0.3))

    async def _stay_connected(self, url: str) -> None:
        connection = stock_connection(url, self._token, self._receive_on, self._handle_disconnect)
        async with connection as sio:
            self._sio, self._connected = sio, True
            self._counts["connections"] += 1
            try:
                for followed in self.followed.values():
                    if not followed.ended or self._rng.random() < 0.05:
                        self._start_join(followed)
                await self._disconnected.wait()
            finally:
                # Handlers drop later events, and the next connection requests them again.
                self._sio, self._connected = None, False
                for task in self._joins:
                    task.cancel()
                await asyncio.gather(*self._joins, return_exceptions=True)

    async def _receive_on(self, sio: socketio.AsyncClient, name: str, data: Any = None) -> None:
        if self._sio is sio:
            event = self._receive(name, data)
            if event is not None and event.is_end and self._leaves():
                await self._leave(data["job_id"])

    async def _leave(self, job_id: str) -> None:
        if self._sio is not None:
            # The client ignores the answer.
            with suppress(SocketIOError):
                await self._sio.emit("leave_job", {"job_id": job_id})

    async def _handle_disconnect(self, sio: socketio.AsyncClient) -> None:
        if self._sio is sio:
            self._disconnected.set()

    def _start_join(self, followed: FollowedJob, delay: float = 0.0) -> None:
        followed.connections.append([])
        task = asyncio.create_task(self._join(followed, delay))
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)

    async def _join(self, followed: FollowedJob, delay: float) -> None:
        await asyncio.sleep(delay)
        job_id = followed.job.job_id
        while True:
            join = Join(followed.after, at=time.monotonic())
            followed.connections[-1].append(join)
            payload: dict[str, Any] = {"job_id": job_id}
            if join.after is not None:
                payload["after"] = dict(zip(("epoch", "seq"), join.after, strict=True))
            answer = await self._request("join_job", payload)
            if answer is None:
                return
            if answer["ok"]:
                join.recovered = answer["recovered"]
                followed.advance(answer["epoch"], answer["seq"])
                self._counts["joins"] += 1
                self._counts["joins with after"] += join.after is not None
                self._counts["joins that recovered"] += answer["recovered"]
                return
            join.refused = answer["code"]
            self._counts[f"joins refused: {join.refused}"] += 1
            # A job stays unknown while its sender is disconnected.
            await asyncio.sleep(self._rng.uniform(0.05, 0.3))

    async def _request(self, name: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        """Send a request. Return the answer, or None if the connection fails."""
        try:
            assert self._sio is not None
            answer: dict[str, Any] = await self._sio.call(name, payload, timeout=ANSWER_TIMEOUT)
        except socketio.exceptions.TimeoutError:
            self._counts["requests without an answer"] += 1
        except SocketIOError:
            pass
        else:
            return answer
        self._disconnected.set()
        return None
