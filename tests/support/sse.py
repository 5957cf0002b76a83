"""A reader of event streams (WHATWG HTML, section 9.2), as browsers have one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx

from tests.support import TIMEOUT


class StreamEvent(NamedTuple):
    """A dispatched event, with the id that the client would resume after."""

    name: str
    data: dict[str, Any]
    id: str


class EventReader:
    """An incremental parser. It ignores an incomplete event at the end, as browsers do."""

    def __init__(self) -> None:
        self.events: list[StreamEvent] = []
        self.comments = 0
        self._buffer = ""
        self._fields: dict[str, str] = {}
        self._id = ""

    def feed(self, text: str) -> None:
        self._buffer += text
        *lines, self._buffer = self._buffer.split("\n")
        for line in lines:
            self._read(line)

    def _read(self, line: str) -> None:
        if line:
            name, _, value = line.partition(":")
            self.comments += not name
            self._fields[name] = value.removeprefix(" ")
            return
        fields, self._fields = self._fields, {}
        self._id = fields.get("id", self._id)
        if "data" in fields:
            self.events.append(StreamEvent(fields["event"], json.loads(fields["data"]), self._id))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event.data for event in self.events if event.name == name]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def seqs(self) -> list[int]:
        return [event.data["seq"] for event in self.events if "timestamp" in event.data]

    @property
    def last_id(self) -> str:
        return self.events[-1].id


def http_client(url: str, token: str | None = None, **options: Any) -> httpx.AsyncClient:
    """A client of a server's HTTP interface."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, **options)


@asynccontextmanager
async def streaming(
    client: httpx.AsyncClient, path: str, **headers: str
) -> AsyncIterator[tuple[EventReader, AsyncIterator[str]]]:
    """Open a stream. Returns the reader, and the chunks of text that feed it."""
    async with client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        reader = EventReader()

        async def chunks() -> AsyncIterator[str]:
            async for text in response.aiter_text():
                reader.feed(text)
                yield text

        yield reader, chunks()


async def read_stream(client: httpx.AsyncClient, path: str, **headers: str) -> EventReader:
    """Read a stream to its end."""
    async with streaming(client, path, **headers) as (reader, chunks):
        async for _ in chunks:
            pass
    return reader


async def read_until(
    reader: EventReader, chunks: AsyncIterator[str], name: str, count: int = 1
) -> list[dict[str, Any]]:
    """Read until so many events of a name have arrived."""
    while len(reader.of(name)) < count:
        await anext(chunks)
    return reader.of(name)
