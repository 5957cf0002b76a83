"""A Socket.IO server that implements the protocol, except where a test overrides it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any

import socketio
import uvicorn

from tests.support import eventually, free_port

TIME = "2026-01-15T09:30:00Z"


class ScriptedServer:
    """A server whose every job has a record with one event.

    Attributes:
        requests: every request with the time of its arrival, in order.
        summaries: the jobs of every feed.
        answer: returns the answer to a request or an awaitable of it; None for the server's own.
        handle_join: replaces the server's own handler of joins.
    """

    def __init__(self, namespace: str = "/") -> None:
        self.url = ""
        self.requests: list[tuple[float, str, dict[str, Any]]] = []
        self.summaries: list[dict[str, Any]] = []
        self.answer: Callable[[str, dict[str, Any]], Any] = lambda _name, _payload: None
        self.handle_join: Callable[[], Awaitable[dict[str, Any]]] | None = None
        self.namespace = namespace
        self.sio = socketio.AsyncServer(async_mode="asgi")
        for name in ("join_job", "leave_job", "join_feed", "leave_feed", "refresh_token"):
            self.sio.on(name, self._handler(name), namespace=namespace)

    def requests_named(self, name: str) -> list[dict[str, Any]]:
        return [payload for _, request, payload in self.requests if request == name]

    def arrivals(self, name: str) -> list[float]:
        return [at for at, request, _ in self.requests if request == name]

    async def emit(self, name: str, payload: object) -> None:
        await self.sio.emit(name, payload, namespace=self.namespace)

    async def emit_joined(self, job_id: str) -> None:
        await self.emit("joined", {"job_id": job_id, "epoch": "1", "seq": 1, "status": "started"})

    async def emit_log(self, job_id: str, seq: int, message: str = "line") -> None:
        payload = {"job_id": job_id, "seq": seq, "timestamp": TIME, "level": "info"}
        await self.emit("job_log", {**payload, "message": message})

    async def emit_snapshot(self, feed: str, jobs: list[dict[str, Any]], **fields: Any) -> None:
        snapshot = {"feed": feed, "jobs": jobs, "reset": True, "last": True, **fields}
        await self.emit("feed_snapshot", snapshot)

    def _handler(self, name: str) -> Callable[..., Any]:
        async def handle(_sid: str, payload: dict[str, Any]) -> Any:
            self.requests.append((time.monotonic(), name, payload))
            override = self.answer(name, payload)
            if isawaitable(override):
                override = await override
            return override if override is not None else await self._handle(name, payload)

        return handle

    async def _handle(self, name: str, payload: dict[str, Any]) -> dict[str, Any]:
        if name == "refresh_token":
            return {"ok": True, "expires_at": TIME}
        if name == "join_feed":
            return await self._join_feed(payload)
        if name == "leave_feed":
            return {"ok": True, "feed": payload["feed"]}
        job_id = payload["job_id"]
        if name == "leave_job":
            return {"ok": True, "job_id": job_id}
        if self.handle_join is not None:
            return await self.handle_join()
        await self.emit_joined(job_id)
        await self.emit_log(job_id, 1)
        accepted = {"job_id": job_id, "epoch": "1", "seq": 1, "status": "started"}
        return {"ok": True, **accepted, "recovered": False}

    async def _join_feed(self, payload: dict[str, Any]) -> dict[str, Any]:
        await self.emit_snapshot(payload["feed"], self.summaries[: payload["limit"]])
        return {"ok": True, "feed": payload["feed"], "total": len(self.summaries)}


@asynccontextmanager
async def scripted_server(namespace: str = "/") -> AsyncIterator[ScriptedServer]:
    """Run a scripted server in the event loop of the test."""
    scripted = ScriptedServer(namespace)
    port = free_port()
    config = uvicorn.Config(
        socketio.ASGIApp(scripted.sio), port=port, log_config=None, ws="websockets-sansio",
        ws_ping_interval=None, lifespan="off",
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "server")
    scripted.url = f"http://127.0.0.1:{port}"
    try:
        yield scripted
    finally:
        server.should_exit = True
        await task
