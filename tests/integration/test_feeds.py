"""Feeds: lists of jobs over Socket.IO and HTTP, from a server in the process of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from jobcast import FeedTarget
from jobcast.aio import cancel_and_wait
from jobcast.events import JobComplete, JobEvent, JobInfoUpdate, JobProgress, JobStatus
from jobcast.realtime import create_app
from jobcast.realtime.feeds import rooms
from jobcast.realtime.feeds.service import MAX_FEEDS
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports import Origin, Outgoing, Retention, TransportPublisher, open_publisher
from tests.conftest import Valkey
from tests.support import SECRET, Follower, eventually, following, free_port, new_id
from tests.support.feed_client import FeedView
from tests.support.http_server import Token, code_of
from tests.support.sse import EventReader, http_client, read_until, streaming

TRANSPORTS = ["memory"]


class Site(NamedTuple):
    """A server in this process, and a publisher to its transport."""

    url: str
    settings: Settings
    app: Starlette
    publisher: TransportPublisher

    def publish(self, *events: JobEvent, owner: str | None = "alice") -> None:
        self.publisher.publish([Outgoing.of(event, Origin(owner=owner)) for event in events])

    async def start(self, *jobs: str, owner: str | None = "alice", **info: Any) -> None:
        for job_id in jobs:
            await asyncio.to_thread(self.publish, started(job_id, **info), owner=owner)


def started(job_id: str, **info: Any) -> JobStatus:
    return JobStatus(job_id=job_id, status="started", task="shop.export", attempt=1, **info)


async def renew(publisher: Any) -> None:
    """Renew leases, as every worker does regularly; this also writes summaries that are due."""
    while True:
        await asyncio.to_thread(publisher.renew, (), 60.0)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Site]:
    app = create_app(settings)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_config=None, ws="websockets-sansio", lifespan="on")
    )
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "server")
    publisher = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    renewing = asyncio.create_task(renew(publisher))
    try:
        yield Site(f"http://127.0.0.1:{port}", settings, app, publisher)
    finally:
        await cancel_and_wait(renewing)
        publisher.close()
        server.should_exit = True
        await task


Options = Callable[..., Settings]


@pytest.fixture(params=TRANSPORTS)
def options(request: pytest.FixtureRequest, valkey: Valkey) -> Options:
    """Return a function that returns settings with a transport and a prefix of their own."""
    url = valkey.url if request.param == "redis" else f"memory://{new_id()}"

    def make(**options: Any) -> Settings:
        return Settings(
            **{
                "url": url,
                "prefix": new_id("feeds"),
                "jwt_secret": SECRET,
                "drain_seconds": 0,
                **options,
            }
        )

    return make


@pytest.fixture
async def site(options: Options) -> AsyncIterator[Site]:
    async with serving(options()) as site:
        yield site


async def join(follower: Follower, feed: str = "mine", **request: Any) -> FeedView:
    """Join a feed. Returns the view of its client after the snapshot."""
    view = FeedView(feed, follower.transcript.events)
    answer = await follower.request("join_feed", {"feed": feed, **request})
    assert answer["ok"], answer
    await view.until(lambda: view.is_complete, "the snapshot")
    return view


async def test_jobs_of_the_subject_appear_change_and_end(site: Site, token: Token) -> None:
    before, after = new_id(), new_id()
    await site.start(before, title="March report", tags=("project:7",))
    async with following(site.url, token("alice")) as alice:
        view = await join(alice)
        assert alice.transcript.hello is not None
        assert {"join_feed", "leave_feed"} <= set(alice.transcript.hello["features"])
        assert view.ids == [before]
        assert view.jobs[before]["title"] == "March report"
        assert view.jobs[before]["tags"] == ["project:7"]
        await site.start(after)
        await view.until(lambda: view.ids == [after, before], "the new job")
        site.publish(JobProgress(job_id=after, percentage=40, message="busy"))
        await view.until(lambda: view.jobs[after].get("percentage") == 40, "its progress")
        site.publish(JobInfoUpdate(job_id=after, title="Export"))
        await view.until(lambda: view.jobs[after].get("title") == "Export", "its title")
        site.publish(JobComplete(job_id=after, result={"secret": 1}))
        await view.until(lambda: view.status_of(after) == "complete", "its end")
        assert "result" not in view.jobs[after]
        assert (await alice.request("leave_feed", {"feed": "mine"}))["ok"]


async def test_page_over_http_has_the_newest_jobs_and_a_cursor(site: Site, token: Token) -> None:
    jobs = [new_id() for _ in range(5)]
    await site.start(*jobs)
    site.publish(JobComplete(job_id=jobs[0], result=None))
    async with http_client(site.url, token("alice")) as client:
        page = (await client.get("/jobs", params={"limit": 3})).json()
        assert [job["job_id"] for job in page["jobs"]] == jobs[:1:-1]
        assert (page["feed"], page["total"]) == ("mine", 5)
        rest = (await client.get("/jobs", params={"cursor": page["cursor"]})).json()
        assert [job["job_id"] for job in rest["jobs"]] == jobs[1::-1]
        assert "cursor" not in rest
        ended = (await client.get("/jobs", params={"status": "complete,failed"})).json()
        assert [job["job_id"] for job in ended["jobs"]] == jobs[:1]
        assert ended["total"] == 1


async def test_stream_of_a_feed_has_no_ids_and_follows_the_changes(
    site: Site, token: Token
) -> None:
    before, after = new_id(), new_id()
    await site.start(before)
    async with (
        http_client(site.url, token("alice")) as client,
        streaming(client, "/feeds/mine/events") as (reader, chunks),
    ):
        view = FeedView("mine", reader.events)
        await read_until(reader, chunks, "feed_snapshot")
        assert view.update().ids == [before]
        await site.start(after)
        await read_until(reader, chunks, "feed_job")
        assert view.update().ids == [after, before]
        assert reader.last_id == ""
