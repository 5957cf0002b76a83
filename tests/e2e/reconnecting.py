"""python-socketio's client with automatic reconnection and a cursor as in PROTOCOL.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import socketio

from tests.support import TIMEOUT, eventually


class ReconnectingClient:
    """A client that follows one job across reconnections."""

    def __init__(self, job_id: str, transports: Sequence[str] = ("websocket",)) -> None:
        self.job_id = job_id
        self.after: dict[str, Any] | None = None
        self.events: list[tuple[str, Any]] = []
        # Without a shared session the client leaves one open after each failed attempt.
        self._http = aiohttp.ClientSession()
        self.client = socketio.AsyncClient(
            handle_sigint=False, reconnection_delay=0.1, reconnection_delay_max=0.5,
            http_session=self._http,
        )  # fmt: skip
        self._transports = list(transports)
        self.client.on("connect", self._join)
        self.client.on("disconnect", self._record_disconnect)
        self.client.on("*", self._receive)

    async def connect(self, url: str, token: str) -> None:
        await self.client.connect(
            url, auth={"token": token}, transports=self._transports, wait_timeout=TIMEOUT
        )

    async def close(self) -> None:
        if self._transports == ["polling"]:
            # A regular disconnect would wait for the response to the last poll.
            await self.client.eio.disconnect(abort=True)
        await self.client.disconnect()
        await self._http.close()

    def payloads(self, name: str) -> list[Any]:
        return [data for event, data in self.events if event == name]

    @property
    def log_messages(self) -> list[str]:
        return [data["message"] for data in self.payloads("job_log")]

    async def wait_for_end(self) -> dict[str, Any]:
        await eventually(lambda: self.payloads("job_complete"), f"end of {self.job_id}")
        end: dict[str, Any] = self.payloads("job_complete")[0]
        return end

    async def _join(self) -> None:
        self.events.append(("connect", None))
        request: dict[str, Any] = {"job_id": self.job_id}
        if self.after is not None:
            request["after"] = self.after
        await self.client.emit("join_job", request)

    def _record_disconnect(self, reason: str) -> None:
        self.events.append(("disconnect", reason))

    def _receive(self, event: str, data: dict[str, Any]) -> None:
        if event == "joined":
            if self.after is None or self.after["epoch"] != data["epoch"]:
                self.after = {"epoch": data["epoch"], "seq": 0}
        elif "seq" in data and self.after is not None:
            if data["seq"] <= self.after["seq"]:
                return
            self.after["seq"] = data["seq"]
        self.events.append((event, data))


@asynccontextmanager
async def reconnecting(
    url: str, token: str, job_id: str, transports: Sequence[str] = ("websocket",)
) -> AsyncIterator[ReconnectingClient]:
    client = ReconnectingClient(job_id, transports)
    try:
        await client.connect(url, token)
        await eventually(lambda: client.payloads("joined"), "joined")
        yield client
    finally:
        await client.close()
