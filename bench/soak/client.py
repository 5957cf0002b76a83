"""Stock Socket.IO clients that come back by themselves, and what they follow."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp
import socketio
from aiohttp.connector import Connection as HttpConnection
from aiohttp.tracing import Trace
from socketio.exceptions import SocketIOError

from bench.soak.jobs import Script
from bench.soak.transcript import Connection, Event, Join, Joined, event_of, told

CONNECT_TIMEOUT: Final = 10.0  # seconds
ANSWER_TIMEOUT: Final = 20.0  # seconds that a server may take to answer a request


@dataclass(frozen=True)
class SentJob:
    job_id: str
    script: Script


class Followed:
    """A job that a client follows: where it is, and what it was sent."""

    def __init__(self, job: SentJob) -> None:
        self.job = job
        self.epoch = ""
        self.seq = 0
        self.ended = False
        self.connections: list[Connection] = []

    @property
    def after(self) -> tuple[str, int] | None:
        return (self.epoch, self.seq) if self.epoch else None

    def begin(self, joined: Joined) -> None:
        self.connections[-1].append(joined)
        if joined.epoch != self.epoch:
            self.epoch, self.seq, self.ended = joined.epoch, 0, False

    def receive(self, event: Event) -> None:
        self.connections[-1].append(event)
        self.seq = max(self.seq, event.seq)
        self.ended = self.ended or event.is_end

    def accept(self, epoch: str, seq: int) -> None:
        """The acknowledgement's cursor; an older one does not replace a newer one."""
        if epoch == self.epoch:
            self.seq = max(self.seq, seq)


class ClosingConnector(aiohttp.TCPConnector):
    """Closes with itself all connections that it has made.

    Engine.IO's client forgets those that are cut, or given up, during the handshake.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: list[HttpConnection] = []

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> HttpConnection:
        connection = await super().connect(req, traces, timeout)
        self._made.append(connection)
        return connection

    def close(self, *, abort_ssl: bool = False) -> Coroutine[Any, Any, None]:
        for connection in self._made:
            connection.close()
        return super().close(abort_ssl=abort_ssl)


class Client:
    """A stock Socket.IO client that comes back as PROTOCOL.md says."""

    def __init__(
        self, name: str, token: str, urls: Sequence[str], rng: random.Random, counts: Counter[str],
        *, leaves: float = 0.7,
    ) -> None:  # fmt: skip
        self.name = name
        self.followed: dict[str, Followed] = {}
        self._token = token
        self._urls = urls
        self._rng = rng
        self._counts = counts
        self._leaves = leaves  # how often it leaves a job that has ended
        self._lost = asyncio.Event()
        self._sio: socketio.AsyncClient | None = None
        self._connected = False
        self._joins: set[asyncio.Task[None]] = set()
        self.heard_at = 0.0

    @property
    def waiting(self) -> list[str]:
        """The jobs whose end has not come."""
        return [job_id for job_id, followed in self.followed.items() if not followed.ended]

    def forget(self, job_ids: Iterable[str]) -> None:
        """Expect nothing of these jobs."""
        for job_id in job_ids:
            if job_id in self.followed:
                self.followed[job_id].ended = True

    def follow(self, job: SentJob) -> None:
        followed = self.followed[job.job_id] = Followed(job)
        if self._connected:
            late = self._rng.choice((0.0, 0.0, self._rng.uniform(0, 2)))
            self._begin(followed, late)

    async def run(self) -> None:
        while True:
            self._lost.clear()
            try:
                await self._stay_connected(self._rng.choice(self._urls))
            except (SocketIOError, OSError, TimeoutError):
                self._counts["connections refused or cut at once"] += 1
            await asyncio.sleep(self._rng.uniform(0.02, 0.3))

    async def _stay_connected(self, url: str) -> None:
        async with self._connection(url) as sio:
            self._sio, self._connected = sio, True
            self._counts["connections"] += 1
            try:
                for followed in self.followed.values():
                    if not followed.ended or self._rng.random() < 0.05:
                        self._begin(followed)
                await self._lost.wait()
            finally:
                # What is still on its way to the handlers was not seen, and will be asked for.
                self._sio, self._connected = None, False
                for task in self._joins:
                    task.cancel()
                await asyncio.gather(*self._joins, return_exceptions=True)

    @asynccontextmanager
    async def _connection(self, url: str) -> AsyncIterator[socketio.AsyncClient]:
        # Engine.IO's own session would be left open when a connection is refused, and one that is
        # closed in ``finally`` when the client is cancelled once more while it disconnects.
        async with aiohttp.ClientSession(connector=ClosingConnector()) as http:
            sio = socketio.AsyncClient(reconnection=False, handle_sigint=False, http_session=http)
            sio.on("*", partial(self._receive_on, sio))
            sio.on("disconnect", partial(self._lose, sio))
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await sio.connect(
                        url, auth={"token": self._token}, transports=["websocket"],
                        wait_timeout=CONNECT_TIMEOUT,
                    )  # fmt: skip
                if not sio.connected or sio.eio.state != "connected":
                    self._lost.set()
                yield sio
            finally:
                with suppress(TimeoutError, SocketIOError, OSError):
                    async with asyncio.timeout(5):
                        await sio.disconnect()

    async def _receive_on(self, sio: socketio.AsyncClient, name: str, data: Any = None) -> None:
        if self._sio is sio:
            await self._receive(name, data)

    async def _lose(self, sio: socketio.AsyncClient, *_: Any) -> None:
        if self._sio is sio:
            self._lost.set()

    def _begin(self, followed: Followed, late: float = 0.0) -> None:
        followed.connections.append([])
        task = asyncio.create_task(self._join(followed, late))
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)

    async def _join(self, followed: Followed, late: float) -> None:
        await asyncio.sleep(late)
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
                followed.accept(answer["epoch"], answer["seq"])
                self._counts["joins"] += 1
                self._counts["joins with after"] += join.after is not None
                self._counts["joins that recovered"] += answer["recovered"]
                return
            join.refused = answer["code"]
            self._counts[f"joins refused: {join.refused}"] += 1
            # That a job is not known is said of one, too, whose sender has no connection just now.
            await asyncio.sleep(self._rng.uniform(0.05, 0.3))

    async def _request(self, name: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None if there will be none on this connection."""
        try:
            assert self._sio is not None
            answer: dict[str, Any] = await self._sio.call(name, payload, timeout=ANSWER_TIMEOUT)
        except socketio.exceptions.TimeoutError:
            self._counts["requests without an answer"] += 1
        except SocketIOError:
            pass
        else:
            return answer
        self._lost.set()
        return None

    async def _receive(self, name: str, data: Any) -> None:
        followed = self.followed.get(data.get("job_id"))
        if followed is None:
            return
        self.heard_at = at = time.monotonic()
        if name == "joined":
            followed.begin(Joined(data["epoch"], data["seq"], at=at))
        elif (event := event_of(name, data, at)) is not None:
            followed.receive(event)
            if event.is_end and self._rng.random() < self._leaves and self._sio is not None:
                # Nobody waits for the answer.
                with suppress(SocketIOError):
                    await self._sio.emit("leave_job", {"job_id": data["job_id"]})


def written(followed: Followed) -> str:
    """A transcript, for people."""
    lines = [f"expected: {', '.join(followed.job.script.transcript())}"]
    for number, connection in enumerate(followed.connections, 1):
        lines.append(f"connection {number}")
        for entry in connection:
            text = told(entry) if isinstance(entry, Event) else repr(entry)
            lines.append(f"  {entry.at:.3f} {text}")
    return "\n".join([*lines, ""])
