"""python-socketio's own client, left to come back by itself, with a cursor as PROTOCOL.md says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import socketio

from tests.support import TIMEOUT, eventually


class Returning:
    """Follows one job over as many connections as it takes."""

    def __init__(self, job_id: str, transports: Sequence[str] = ("websocket",)) -> None:
        self.job_id = job_id
        self.after: dict[str, Any] | None = None
        self.events: list[tuple[str, Any]] = []
        # One of its own would be left open at each attempt that fails.
        self._http = aiohttp.ClientSession()
        self.client = socketio.AsyncClient(
            handle_sigint=False, reconnection_delay=0.1, reconnection_delay_max=0.5,
            http_session=self._http,
        )  # fmt: skip
        self._transports = list(transports)
        self.client.on("connect", self._join)
        self.client.on("disconnect", self._note_disconnect)
        self.client.on("*", self._receive)

    async def connect(self, url: str, token: str) -> None:
        await self.client.connect(
            url, auth={"token": token}, transports=self._transports, wait_timeout=TIMEOUT
        )

    async def close(self) -> None:
        if self._transports == ["polling"]:
            # An orderly end would wait for the answer to the last poll.
            await self.client.eio.disconnect(abort=True)
        await self.client.disconnect()
        await self._http.close()

    def of(self, name: str) -> list[Any]:
        return [data for event, data in self.events if event == name]

    @property
    def lines(self) -> list[str]:
        return [data["message"] for data in self.of("job_log")]

    async def end(self) -> dict[str, Any]:
        await eventually(lambda: self.of("job_complete"), f"end of {self.job_id}")
        end: dict[str, Any] = self.of("job_complete")[0]
        return end

    async def _join(self) -> None:
        self.events.append(("connect", None))
        request: dict[str, Any] = {"job_id": self.job_id}
        if self.after is not None:
            request["after"] = self.after
        await self.client.emit("join_job", request)

    def _note_disconnect(self, reason: str) -> None:
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
async def returning(
    url: str, token: str, job_id: str, transports: Sequence[str] = ("websocket",)
) -> AsyncIterator[Returning]:
    client = Returning(job_id, transports)
    try:
        await client.connect(url, token)
        await eventually(lambda: client.of("joined"), "joined")
        yield client
    finally:
        await client.close()
