"""Limits of lists: what a busy feed, a slow client and a hostile client cost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from jobcast.events import JobProgress
from jobcast.realtime.feeds.sender import FLUSH_INTERVAL
from jobcast.realtime.feeds.service import MAX_FEEDS
from tests.integration.feeds.site import Options, Site, join, metric, names_of, serving, started
from tests.support import ROOT, eventually, following, new_id
from tests.support.attacks.event_streams import status_of, stream_request
from tests.support.feed_client import FeedView
from tests.support.http_server import Token, code_of
from tests.support.sse import EventReader, http_client, read_until, streaming
from tests.support.wire import Wire

JOBS = 200
INVALID = sorted(
    path
    for name in ("join_feed", "leave_feed")
    for path in (ROOT / "protocol" / "examples" / "invalid").glob(f"{name}-*.json")
)


def progress(job_id: str, turn: int) -> JobProgress:
    return JobProgress(job_id=job_id, percentage=turn % 100, message=f"{turn} " + "x" * 200)


async def test_connection_may_follow_a_limited_number_of_feeds(site: Site, token: Token) -> None:
    async with following(site.url, token("alice", feeds=["*"])) as alice:
        for number in range(MAX_FEEDS):
            await join(alice, f"tag:{number}")
        answer = await alice.request("join_feed", {"feed": "mine"})
        assert answer["code"] == "too_many_feeds"
        await join(alice, "tag:0")
        await alice.request("leave_feed", {"feed": "tag:1"})
        await join(alice, "mine")


async def test_server_without_feeds_says_so(options: Options, token: Token) -> None:
    async with serving(options(feed_size=0)) as site:
        async with following(site.url, token("alice")) as alice:
            answer = await alice.request("join_feed", {"feed": "mine"})
            assert answer["code"] == "feeds_unavailable"
            assert (await alice.request("leave_feed", {"feed": "mine"}))["ok"]
            await eventually(lambda: alice.transcript.hello, "hello")
            assert alice.transcript.hello is not None
            assert "join_job" in alice.transcript.hello["features"]
            assert "join_feed" not in alice.transcript.hello["features"]
        async with http_client(site.url, token("alice")) as client:
            for path in ("/jobs", "/feeds/mine/events"):
                assert code_of(await client.get(path), 404) == "feeds_unavailable"


async def test_invalid_requests_are_refused(site: Site, token: Token) -> None:
    async with following(site.url, token("alice", feeds=["*"])) as alice:
        await join(alice)
        for path in INVALID:
            example: dict[str, Any] = json.loads(path.read_text("utf-8"))
            answer = await alice.request(example["message"], example["payload"])
            assert (answer["ok"], answer["code"]) == (False, "invalid_request"), path.stem
        answer = await alice.request("join_feed", {"feed": "mine", "after": "no cursor"})
        assert answer["code"] == "invalid_request"


@pytest.mark.parametrize(
    "path",
    [
        "/jobs?feed=yours", "/jobs?feed=", "/jobs?feed=tag:%07", "/jobs?limit=0", "/jobs?limit=-1",
        "/jobs?limit=x", "/jobs?limit=%D9%A3", "/jobs?limit=1_0", "/jobs?cursor=x",
        "/jobs?cursor=~",
        "/jobs?since=yesterday", "/jobs?since=2026-01-01T00:00:00", f"/jobs?status={'x' * 65}",
        f"/jobs?status={','.join('x' * 17)}", "/jobs?tag=%00", f"/jobs?owner={'x' * 257}",
        "/feeds/mine", "/feeds//events", "/feeds/yours/events", "/feeds/mine/events/more",
        "/feeds/tag%3A/events", "/feeds/mine/events?limit=0", "/feeds/mine/events?since=1",
    ],
)  # fmt: skip
async def test_invalid_parameters_are_problems(site: Site, token: Token, path: str) -> None:
    async with http_client(site.url, token("alice", feeds=["*"])) as client:
        assert code_of(await client.get(path), 400) == "invalid_request"


async def test_other_methods_are_problems(site: Site, token: Token) -> None:
    async with http_client(site.url, token("alice")) as client:
        assert code_of(await client.post("/jobs"), 405) == "method_not_allowed"
        assert code_of(await client.delete("/feeds/mine/events"), 405) == "method_not_allowed"
        assert (await client.head("/feeds/mine/events")).status_code == 405
        assert (await client.head("/jobs")).status_code == 200
    async with http_client(site.url) as client:
        for path in ("/jobs", "/feeds/mine/events"):
            assert code_of(await client.get(path), 401) == "token_missing"


async def test_largest_limit_of_a_page_applies(site: Site, token: Token) -> None:
    async with http_client(site.url, token("alice")) as client:
        page = await client.get("/jobs", params={"limit": 999_999_999})
        assert page.json() == {"feed": "mine", "jobs": [], "total": 0}


async def test_busy_feed_costs_a_follower_what_the_limit_says(
    options: Options, token: Token
) -> None:
    rate = 20
    async with serving(options(feed_rate=rate)) as site:
        jobs = [new_id() for _ in range(JOBS)]
        await site.publish(*map(started, jobs))
        await site.wait_in("owner:alice", *jobs, status="started")
        async with following(site.url, token("alice")) as alice:
            view = await join(alice, limit=JOBS)
            loop = asyncio.get_running_loop()
            began, turn = loop.time(), 0
            while loop.time() < began + 6:
                turn += 1
                await site.publish(
                    *(JobProgress(job_id=job, percentage=turn % 100) for job in jobs)
                )
                await asyncio.sleep(0.1)
            view.update()
            elapsed = loop.time() - began
            changes = names_of(alice.transcript.events, "mine").count("feed_job")
            assert 0 < changes <= rate * (elapsed + FLUSH_INTERVAL) + 1
            await site.complete(*jobs)
            await view.until(
                lambda: {job["status"] for job in view.jobs.values()} == {"complete"},
                "the end of every job",
            )


async def test_stream_that_is_not_read_holds_one_change_for_each_job(
    site: Site, token: Token
) -> None:
    """The client reads again later, and gets the latest state of every job."""
    jobs = [new_id() for _ in range(JOBS)]
    await site.publish(*map(started, jobs))
    await site.wait_in("owner:alice", *jobs, status="started")
    async with Wire(site.url, window=4096) as slow:
        await slow.send(stream_request(f"/feeds/mine/events?limit={JOBS}", token("alice")))
        assert status_of(await slow.read_head()) == 200
        [stream] = await eventually(lambda: list(site.gateway.hub.connections), "the connection")
        for turn in range(20):
            message = f"{turn} " + "x" * 200
            await site.publish(
                *(JobProgress(job_id=job, percentage=1, message=message) for job in jobs)
            )
            await asyncio.sleep(0.2)
            assert stream.waiting <= site.settings.send_buffer / 2
        await site.complete(*jobs)
        assert not stream.closed
        reader = EventReader()
        view = FeedView("mine", reader.events)
        while sum(job["status"] == "complete" for job in view.jobs.values()) < JOBS:
            reader.feed((await slow.read_chunk()).decode())
            view.update()


async def test_repeated_joins_are_limited_by_the_budget_of_history(
    options: Options, token: Token
) -> None:
    async with serving(options(history_rate=1024)) as site:
        await site.start(*(new_id() for _ in range(20)), title="x" * 250)
        async with following(site.url, token("alice")) as alice:
            answer = await alice.request("join_feed", {"feed": "mine"})
            for _ in range(20):
                if not answer["ok"]:
                    break
                answer = await alice.request("join_feed", {"feed": "mine"})
            assert answer["code"] == "rate_limited"
            assert answer["retry_after"] > 0


async def test_searches_without_a_match_are_limited_by_the_budget_of_history(
    options: Options, token: Token
) -> None:
    async with serving(options(history_rate=1024)) as site:
        jobs = [new_id() for _ in range(JOBS)]
        await site.publish(*map(started, jobs))
        await site.wait_in("owner:alice", *jobs, status="started")
        async with (
            following(site.url, token("alice")) as alice,
            http_client(site.url, token("alice")) as client,
        ):
            request = {"feed": "mine", "filter": {"status": ["failed"]}}
            answers = [await alice.request("join_feed", request) for _ in range(10)]
            assert answers[0]["ok"]
            assert answers[-1].get("code") == "rate_limited"
            pages = [await client.get("/jobs?status=failed") for _ in range(10)]
            assert pages[0].status_code == 200
            assert code_of(pages[-1], 429) == "rate_limited"


async def test_connection_that_ends_leaves_nothing_behind(site: Site, token: Token) -> None:
    before = metric("jobcast_feed_followers")
    async with (
        following(site.url, token("alice")) as alice,
        http_client(site.url, token("alice")) as client,
        streaming(client, "/feeds/mine/events") as (reader, chunks),
    ):
        await join(alice)
        await read_until(reader, chunks, "feed_snapshot")
        assert metric("jobcast_feed_followers") == before + 2
    await eventually(lambda: metric("jobcast_feed_followers") == before, "the end of both")
    [room] = site.gateway.hub._feed_rooms._rooms.values()
    assert room.is_unused


async def test_draining_process_ends_its_streams(options: Options, token: Token) -> None:
    async with serving(options()) as site:
        async with (
            http_client(site.url, token("alice")) as client,
            streaming(client, "/feeds/mine/events") as (reader, chunks),
        ):
            await read_until(reader, chunks, "feed_snapshot")
            draining = asyncio.create_task(site.gateway.drain())
            async for _ in chunks:
                pass
            await draining
            assert reader.names[-1] == "draining"
            assert code_of(await client.get("/feeds/mine/events"), 503) == "unavailable"


def test_examples_exist() -> None:
    assert len(INVALID) > 30
    assert all(isinstance(path, Path) for path in INVALID)
