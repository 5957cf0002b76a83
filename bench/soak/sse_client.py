"""A client of event streams that reconnects as a browser's EventSource does."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from bench.soak.client import Client
from bench.soak.followed_job import FollowedJob
from bench.soak.transcript import Join
from tests.support.sse import EventReader

TIMEOUT: Final = 20.0  # seconds without a byte; longer than the interval of the heartbeat
STREAM_JOBS: Final = 8  # jobs of one stream
MAX_PAUSE: Final = 2.0  # seconds until another request after a refusal


class Stream:
    """One event stream: its jobs, and the position at which the next request resumes.

    Attributes:
        last_id: the last id that the client received.
        is_refused: whether the last request was refused. An EventSource stops then, and a page
            that creates another one can only send the position in the URL.
    """

    def __init__(self, jobs: Sequence[FollowedJob]) -> None:
        self.jobs = jobs
        self.last_id = ""
        self.is_refused = False
        self.joins: dict[str, Join] = {}

    @property
    def has_ended(self) -> bool:
        return all(followed.ended for followed in self.jobs)

    @property
    def path(self) -> str:
        if len(self.jobs) == 1:
            return f"/jobs/{self.jobs[0].job.job_id}/events"
        return "/events"

    @property
    def query(self) -> str:
        parameters: list[tuple[str, str]] = []
        if len(self.jobs) > 1:
            parameters += [("job", followed.job.job_id) for followed in self.jobs]
        if self.last_id and self.is_refused:
            parameters.append(("after", self.last_id))
        return urlencode(parameters)

    @property
    def headers(self) -> dict[str, str]:
        return {"Last-Event-ID": self.last_id} if self.last_id and not self.is_refused else {}

    def begin(self) -> None:
        """Begin a connection of each job."""
        entries = self.last_id.split(",") if self.last_id else [""] * len(self.jobs)
        for followed, entry in zip(self.jobs, entries, strict=True):
            epoch, _, seq = entry.rpartition(":")
            join = Join((epoch, int(seq)) if entry else None, at=time.monotonic())
            self.joins[followed.job.job_id] = join
            followed.connections.append([join])

    def confirm(self, joined: Mapping[str, Any]) -> None:
        """Note whether a join recovered. A stream has no acknowledgement that contains it."""
        join = self.joins[joined["job_id"]]
        if join.recovered is None:
            join.recovered = (
                join.after is not None
                and joined["epoch"] == join.after[0]
                and joined.get("complete_from", 0) <= join.after[1] + 1
            )


class SSEClient(Client):
    """A client with an event stream for each group of jobs that it starts to follow together."""

    def __init__(
        self, name: str, token: str, urls: Sequence[str], rng: random.Random, counts: Counter[str],
        *, leave_probability: float = 0.7,
    ) -> None:  # fmt: skip
        super().__init__(name, token, urls, rng, counts, leave_probability=leave_probability)
        self._unfollowed: asyncio.Queue[FollowedJob] = asyncio.Queue()

    def _start(self, followed: FollowedJob) -> None:
        self._unfollowed.put_nowait(followed)

    async def run(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(
                headers=headers, timeout=TIMEOUT, limits=limits, trust_env=False
            ) as http,
            asyncio.TaskGroup() as streams,
        ):
            while True:
                jobs = [await self._unfollowed.get()]
                await asyncio.sleep(self._rng.choice((0.0, self._rng.uniform(0, 4))))
                while len(jobs) < STREAM_JOBS and not self._unfollowed.empty():
                    jobs.append(self._unfollowed.get_nowait())
                streams.create_task(self._follow(http, Stream(jobs)))

    async def _follow(self, http: httpx.AsyncClient, stream: Stream) -> None:
        """Follow jobs until the server has no further event, or the client has every end."""
        while True:
            try:
                pause = await self._open(http, stream)
            except httpx.TransportError:
                self._counts["streams refused or broken"] += 1
                pause = 0.0
            if pause is None or (stream.has_ended and self._leaves()):
                return
            await asyncio.sleep(pause + self._rng.uniform(0.02, 0.3))

    async def _open(self, http: httpx.AsyncClient, stream: Stream) -> float | None:
        """Open a stream, and read it to its end.

        Returns:
            The seconds until the next request, or None if the server has no further event.
        """
        url = f"{self._rng.choice(self._urls)}{stream.path}?{stream.query}"
        stream.begin()
        async with http.stream("GET", url, headers=stream.headers) as response:
            stream.is_refused = response.is_error
            if response.status_code == HTTPStatus.NO_CONTENT:
                self._counts["streams resumed after the end (204)"] += 1
                return None
            if response.is_error:
                return await self._refused(response, stream)
            self._counts["streams"] += 1
            self._counts["streams of several jobs"] += len(stream.jobs) > 1
            self._counts["streams that resumed"] += bool(stream.last_id)
            await self._read(response, stream)
        return 0.0

    async def _refused(self, response: httpx.Response, stream: Stream) -> float:
        await response.aread()
        code = response.json()["code"]
        for join in stream.joins.values():
            join.refused = code
        self._counts[f"joins refused: {code}"] += 1
        # A job stays unknown while its sender is disconnected.
        return min(float(response.headers.get("Retry-After", 0)), MAX_PAUSE)

    async def _read(self, response: httpx.Response, stream: Stream) -> None:
        """Read a stream to its end, or until the server refuses one of its jobs."""
        reader = EventReader()
        async for text in response.aiter_text():
            reader.feed(text)
            events, reader.events = reader.events, []
            for name, data, last_id in events:
                if name == "left":
                    self._counts[f"joins refused: {data['code']}"] += 1
                    return
                if name == "joined":
                    stream.confirm(data)
                self._receive(name, data)
                stream.last_id = last_id or stream.last_id
