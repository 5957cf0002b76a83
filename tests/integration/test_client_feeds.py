"""The feeds of the asyncio client with the answers of a loaded server, and with invalid ones."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from jobcast.client import Feed, FeedGone, JobClient, JobSummary
from jobcast.errors import ConnectionRefused, FeedRefused
from tests.support import TIMEOUT, eventually
from tests.support.scripted_server import TIME, ScriptedServer, scripted_server

NOT_ALLOWED = {"ok": False, "code": "feed_not_allowed", "message": "the token does not allow it"}
RATE_LIMITED = {"ok": False, "code": "rate_limited", "message": "wait", "retry_after": 0.2}


def summary(job_id: str, *, seq: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "job_id": job_id, "epoch": "e", "seq": seq, "status": "started", "created_at": TIME,
        **fields,
    }  # fmt: skip


async def upsert(server: ScriptedServer, feed: str, job_id: str, seq: int = 1) -> None:
    await server.emit("feed_job", {"feed": feed, **summary(job_id, seq=seq)})


async def next_change(feed: Feed) -> JobSummary | FeedGone:
    async with asyncio.timeout(TIMEOUT):
        return await anext(feed)


def ids(feed: Feed) -> list[str]:
    return [job.job_id for job in feed.jobs]


async def test_open_feed_has_the_snapshot_and_yields_later_changes() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        server.summaries = [summary("a"), summary("b")]
        async with client.feed() as feed:
            assert (feed.name, ids(feed), feed.total, feed.has_more) == (
                "mine", ["a", "b"], 2, False,
            )  # fmt: skip
            await upsert(server, "mine", "a", seq=2)
            change = await next_change(feed)
            assert isinstance(change, JobSummary)
            assert (change.job_id, change.seq, feed.jobs[0]) == ("a", 2, change)
            await server.emit("feed_gone", {"feed": "mine", "job_id": "b"})
            assert await next_change(feed) == FeedGone(feed="mine", job_id="b")
            assert (ids(feed), feed.total) == (["a"], 1)
        await eventually(lambda: server.requests_named("leave_feed"), "leave")


async def test_jobs_returns_the_list_and_leaves_the_feed() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        server.summaries = [summary("a"), summary("b"), summary("c")]
        jobs = await client.jobs("all", status="running", limit=2)
        assert [job.job_id for job in jobs] == ["a", "b"]
        assert server.requests_named("join_feed") == [
            {"feed": "all", "filter": {"status": ["running"]}, "limit": 2}
        ]
        await eventually(lambda: server.requests_named("leave_feed"), "leave")


async def test_feed_survives_a_lost_connection() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        server.summaries = [summary("a"), summary("b")]
        async with client.feed() as feed:
            server.summaries = [summary("a"), summary("b", seq=2), summary("c")]
            client._connection.reconnect()
            changes = [await next_change(feed) for _ in range(2)]
            assert {change.job_id for change in changes} == {"b", "c"}
            server.summaries = [summary("c")]
            client._connection.reconnect()
            changes = [await next_change(feed) for _ in range(2)]
            assert {(type(change), change.job_id) for change in changes} == {
                (FeedGone, "a"), (FeedGone, "b"),
            }  # fmt: skip
            assert ids(feed) == ["c"]


async def test_equal_requests_share_a_join() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        server.summaries = [summary("a")]
        async with client.feed(status="failed") as first:
            async with client.feed(status=["failed"]) as second:
                await upsert(server, "mine", "b")
                for feed in (first, second):
                    assert (await next_change(feed)).job_id == "b"
            assert [job.job_id for job in await client.jobs(status="failed")] == ["a", "b"]
            assert len(server.requests_named("join_feed")) == 1
            assert server.requests_named("leave_feed") == []


async def test_request_with_another_filter_does_not_disturb_the_open_feed() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        server.summaries = [summary("a")]
        async with client.feed() as feed, client.feed(tag="x") as other:
            assert len(await client.jobs(tag="y")) == 1
            filters = [payload.get("filter") for payload in server.requests_named("join_feed")]
            assert filters == [None, {"tag": "x"}, {"tag": "y"}]
            await upsert(server, "mine", "b")  # to both connections
            assert (await next_change(feed)).job_id == "b"
            assert (await next_change(other)).job_id == "b"
        assert len(server.requests_named("join_feed")) == 3


async def test_refusal_is_raised() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        server.answer = lambda _name, _payload: NOT_ALLOWED
        with pytest.raises(FeedRefused, match="does not allow it") as refused:
            await client.jobs("all")
        assert (refused.value.feed, refused.value.code) == ("all", "feed_not_allowed")
        server.answer = lambda _name, _payload: None
        assert await client.jobs("all") == []  # a refusal is not remembered


async def test_rate_limited_join_is_repeated() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        server.answer = lambda name, _payload: (
            RATE_LIMITED if len(server.requests_named(name)) < 3 else None
        )
        assert await client.jobs() == []
        assert len(server.requests_named("join_feed")) == 3


async def test_end_of_the_right_ends_the_iteration_after_the_changes_before_it() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        async with client.feed("tag:x") as feed:
            await upsert(server, "tag:x", "a")
            left = {"feed": "tag:x", "code": "feed_not_allowed", "message": "not any more"}
            await server.emit("feed_left", left)
            assert (await next_change(feed)).job_id == "a"
            for _ in range(2):
                with pytest.raises(FeedRefused, match="not any more"):
                    await next_change(feed)
        assert server.requests_named("leave_feed") == []


@pytest.mark.parametrize("code", ["internal_error", "unavailable"])
async def test_end_for_a_temporary_reason_is_followed_by_another_join(code: str) -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        async with client.feed() as feed:
            server.summaries = [summary("a")]
            await server.emit("feed_left", {"feed": "mine", "code": code, "message": "later"})
            assert (await next_change(feed)).job_id == "a"
        assert len(server.requests_named("join_feed")) == 2


async def test_closed_client_ends_the_iteration() -> None:
    async with scripted_server() as server, AsyncExitStack() as exits:
        client = await exits.enter_async_context(JobClient(server.url, "token"))
        async with client.feed() as feed:
            waiting = asyncio.create_task(next_change(feed))
            await asyncio.sleep(0)
            await exits.aclose()
            with pytest.raises(ConnectionRefused) as closed:
                await waiting
            assert closed.value.code == "closed"
        with pytest.raises(ConnectionRefused):
            await client.jobs()


async def test_older_jobs_fill_a_list_that_has_shrunk() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:

        def answer(name: str, payload: dict[str, Any]) -> Any:
            return {"ok": True, "feed": "mine", "total": 3} if name == "join_feed" else None

        server.answer = answer
        opening = asyncio.create_task(client.feed(limit=2).__aenter__())
        await eventually(lambda: server.requests_named("join_feed"), "join")
        await server.emit_snapshot("mine", [summary("c"), summary("b")], cursor="next")
        feed = await opening
        assert (feed.total, feed.has_more) == (3, True)
        await server.emit("feed_gone", {"feed": "mine", "job_id": "c"})
        await eventually(
            lambda: len(server.requests_named("join_feed")) == 2, "join for older jobs"
        )
        await server.emit_snapshot("mine", [summary("b"), summary("a")])
        assert [(await next_change(feed)).job_id for _ in range(2)] == ["c", "a"]
        assert (ids(feed), feed.total) == (["a", "b"], 2)
        await feed.__aexit__(None, None, None)


async def test_older_jobs_fill_a_list_that_shrinks_before_the_answer_to_the_join() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:

        async def join() -> dict[str, Any]:
            if len(server.requests_named("join_feed")) == 1:
                await server.emit_snapshot("mine", [summary("c"), summary("b")], cursor="next")
                await server.emit("feed_gone", {"feed": "mine", "job_id": "c"})
            else:
                await server.emit_snapshot("mine", [summary("b"), summary("a")])
            return {"ok": True, "feed": "mine", "total": 2}

        server.answer = lambda name, _payload: join() if name == "join_feed" else None
        async with client.feed(limit=2) as feed:
            await eventually(lambda: ids(feed) == ["a", "b"], "older jobs")
            assert (feed.total, feed.has_more) == (2, False)


async def test_refusal_ends_the_wait_for_older_jobs() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:

        def answer(name: str, _payload: dict[str, Any]) -> Any:
            if len(server.requests_named("join_feed")) > 1:
                return NOT_ALLOWED
            return {"ok": True, "feed": "mine", "total": 2} if name == "join_feed" else None

        server.answer = answer
        opening = asyncio.create_task(client.feed(limit=1).__aenter__())
        await eventually(lambda: server.requests_named("join_feed"), "join")
        await server.emit_snapshot("mine", [summary("b")], cursor="next")
        feed = await opening
        with pytest.raises(FeedRefused, match="does not allow it"):
            async with asyncio.timeout(TIMEOUT):
                await feed.load_more()
        await feed.__aexit__(None, None, None)
        await feed.load_more()  # without effect on a closed feed


async def test_invalid_message_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        async with client.feed() as feed:
            await server.emit("feed_job", {"feed": "mine", "job_id": "a"})
            await server.emit("feed_job", ["mine"])
            await server.emit("feed_left", {"feed": 7})
            await server.emit("feed_gone", {"feed": ["mine"], "job_id": "a"})
            await upsert(server, "all", "a")
            await upsert(server, "mine", "b")
            assert (await next_change(feed)).job_id == "b"
        assert caplog.text.count("ignored an event that violates the protocol: feed_") == 4


async def test_cancelled_opening_leaves_the_feed() -> None:
    async with scripted_server() as server, JobClient(server.url, "token") as client:
        server.answer = lambda name, _payload: (
            {"ok": True, "feed": "mine", "total": 0} if name == "join_feed" else None
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.jobs()
        await eventually(lambda: server.requests_named("leave_feed"), "leave")
