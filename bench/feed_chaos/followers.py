"""Followers of feeds, over each interface."""

from __future__ import annotations

import asyncio
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import socketio
from msgspec import UNSET
from socketio.exceptions import SocketIOError

from bench.feed_chaos.sent_jobs import SentJobs
from bench.soak.socketio_client import ANSWER_TIMEOUT, stock_connection
from bench.soak.sse_client import MAX_PAUSE, TIMEOUT
from jobcast.client import Feed, JobClient
from jobcast.client.feed_request import feed_query
from jobcast.errors import ClientError, ConnectionRefused
from jobcast.feeds import (
    FEED_EVENTS,
    MAX_FEED_LIMIT,
    MINE,
    NO_FILTER,
    OWNER_PREFIX,
    FeedFilter,
    FeedGone,
    JobSummary,
    JoinFeed,
)
from tests.support.feed_client import FeedView
from tests.support.sse import EventReader

PAUSE: Final = (0.02, 0.3)  # seconds until the next connection


class Follower(ABC):
    """A follower of one feed, which reconnects.

    Args:
        name: the name in reports.
        request: the feed and the filter.
        token: the token of every connection.
        sub: the subject of the token.
        urls: the server processes, one of which each connection chooses.
        sent: the jobs that the run sends.
        rng: the source of all choices.
        counts: the counts of the report.
    """

    def __init__(
        self, name: str, request: JoinFeed, token: str, sub: str, urls: Sequence[str],
        sent: SentJobs, rng: random.Random, counts: Counter[str],
    ) -> None:  # fmt: skip
        self.name = name
        self.request = request
        self.feed = OWNER_PREFIX + sub if request.feed == MINE else request.feed
        self.problems: list[str] = []
        self._token = token
        self._urls = urls
        self._sent = sent
        self._rng = rng
        self._counts = counts

    def __repr__(self) -> str:
        return self.name

    @property
    def wanted(self) -> FeedFilter:
        return NO_FILTER if self.request.filter is UNSET else self.request.filter

    @property
    @abstractmethod
    def jobs(self) -> Mapping[str, JobSummary]:
        """The list as the follower shows it."""

    @property
    def is_complete(self) -> bool:
        """Whether the follower has a list."""
        return True

    @property
    def transcript(self) -> str:
        """What the follower received, for a person who looks for the cause of a difference."""
        return ""

    async def run(self) -> None:
        """Connect, and reconnect until the task is cancelled."""
        while True:
            try:
                await self._stay_connected(self._rng.choice(self._urls))
            except (SocketIOError, httpx.TransportError, OSError, TimeoutError, ConnectionRefused):
                self._counts["connections refused or closed at once"] += 1
            await asyncio.sleep(self._rng.uniform(*PAUSE))

    @abstractmethod
    async def _stay_connected(self, url: str) -> None:
        """Connect, and receive changes until the connection ends."""

    def _check(self, job: JobSummary) -> None:
        problem = self._sent.problem_of(job, self.feed)
        if problem is not None:
            self.problems.append(problem)


class WireFollower(Follower):
    """A follower that applies the messages as PROTOCOL.md describes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._view = FeedView(self.request.feed, self._events)

    @property
    def jobs(self) -> Mapping[str, JobSummary]:
        jobs = self._view.jobs.items()
        return {job_id: msgspec.convert(job, JobSummary) for job_id, job in jobs}

    @property
    def is_complete(self) -> bool:
        return self._view.is_complete

    @property
    def transcript(self) -> str:
        return "".join(f"{name} {json.dumps(data)}\n" for name, data in self._events)

    def _receive(self, name: str, data: dict[str, Any]) -> None:
        if name not in FEED_EVENTS:
            return
        self._counts[f"messages: {name}"] += 1
        self._events.append((name, data))
        if name == "feed_left":
            self.problems.append(f"the server ended the right to the feed: {data}")
        try:
            self._view.update()
        except (AssertionError, KeyError) as exc:
            self.problems.append(f"{name} violates the protocol: {exc!r}, {data}")
        received = data.get("jobs", [data] if name == "feed_job" else [])
        for job in received:
            self._check(msgspec.convert(job, JobSummary))

    def _begin(self) -> None:
        self._counts["joins"] += 1
        self._events.append(("joins", {}))


class SocketIOFollower(WireFollower):
    """A stock Socket.IO client."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sio: socketio.AsyncClient | None = None
        self._disconnected = asyncio.Event()

    async def _stay_connected(self, url: str) -> None:
        connection = stock_connection(url, self._token, self._receive_on, self._handle_disconnect)
        async with connection as self._sio:
            self._disconnected.clear()
            try:
                if self._sio.connected and await self._join(self._sio):
                    await self._disconnected.wait()
            finally:
                self._sio = None  # later events of this connection are dropped

    async def _receive_on(self, sio: socketio.AsyncClient, name: str, data: Any) -> None:
        if self._sio is sio:
            self._receive(name, data)

    async def _handle_disconnect(self, sio: socketio.AsyncClient) -> None:
        if self._sio is sio:
            self._disconnected.set()

    async def _join(self, sio: socketio.AsyncClient) -> bool:
        self._begin()
        answer = await sio.call(
            "join_feed", msgspec.to_builtins(self.request), timeout=ANSWER_TIMEOUT
        )
        if not answer["ok"]:
            self._counts[f"joins refused: {answer['code']}"] += 1
        return bool(answer["ok"])


class SSEFollower(WireFollower):
    """A reader of an event stream."""

    async def _stay_connected(self, url: str) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        query = feed_query(self.request, limit=MAX_FEED_LIMIT)
        path = f"{url}/feeds/{quote(self.request.feed, safe='')}/events?{query}"
        async with (
            httpx.AsyncClient(headers=headers, timeout=TIMEOUT, trust_env=False) as http,
            http.stream("GET", path) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                await self._refused(response)
                return
            self._begin()
            reader = EventReader()
            async for text in response.aiter_text():
                reader.feed(text)
                events, reader.events = reader.events, []
                for name, data, _ in events:
                    self._receive(name, data)

    async def _refused(self, response: httpx.Response) -> None:
        await response.aread()
        self._counts[f"joins refused: {response.json()['code']}"] += 1
        await asyncio.sleep(min(float(response.headers.get("Retry-After", 0)), MAX_PAUSE))


class ClientFollower(Follower):
    """A user of ``JobClient``, which reconnects on its own."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._opened: Feed | None = None

    @property
    def jobs(self) -> Mapping[str, JobSummary]:
        return {} if self._opened is None else {job.job_id: job for job in self._opened.jobs}

    @property
    def is_complete(self) -> bool:
        return self._opened is not None

    async def _stay_connected(self, url: str) -> None:
        wanted = {} if self.request.filter is UNSET else msgspec.to_builtins(self.request.filter)
        async with (
            JobClient(url, self._token) as client,
            client.feed(self.request.feed, limit=MAX_FEED_LIMIT, **wanted) as feed,
        ):
            self._counts["joins"] += 1
            for job in feed.jobs:
                self._check(job)
            self._opened = feed
            await self._read(feed)

    async def _read(self, feed: Feed) -> None:
        try:
            async for change in feed:
                self._counts["changes read from JobClient"] += 1
                if not isinstance(change, FeedGone):
                    self._check(change)
        except ClientError as exc:
            self.problems.append(f"JobClient gave up: {exc!r}")
            raise


KINDS: Final = (SSEFollower, SocketIOFollower, SSEFollower, ClientFollower)
