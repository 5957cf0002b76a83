"""Rights to lists: owners, claims, rules, and rights that end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from jobcast import FeedTarget
from jobcast.revocation import revoke
from tests.integration.feeds import rules
from tests.integration.feeds.site import Options, Site, join, serving
from tests.support import SHORT_LIVED, eventually, following
from tests.support.http_server import Token, code_of
from tests.support.sse import http_client, read_until, streaming

ODD_OWNERS = (
    "o'brien",
    "Ä/ö?#&=%2F",
    "line\nbreak",
    "*",
    "a{1}:b",
    "../events",
    "\U0001f600 x",
    "mine",
)
RULE = "tests.integration.feeds.rules:may_list_tags"


@pytest.fixture(autouse=True)
def _forget_calls() -> Iterator[None]:
    yield
    rules.asked.clear()
    rules.closed.clear()


async def test_two_owners_never_see_each_others_jobs(site: Site, token: Token) -> None:
    async with (
        following(site.url, token("alice")) as alice,
        following(site.url, token("bob")) as bob,
    ):
        views = {"alice": await join(alice), "bob": await join(bob)}
        for number in range(20):
            owner = ("alice", "bob")[number % 2]
            await site.start(f"{owner}-{number}", owner=owner, tags=("shared",))
            await site.complete(f"{owner}-{number}", owner=owner)
        await site.start("nobody", owner=None, tags=("shared",))
        for owner, view in views.items():
            first = ("alice", "bob").index(owner)
            own = {f"{owner}-{number}" for number in range(first, 20, 2)}
            await view.until_shows(dict.fromkeys(own, "complete"))
            assert view.seen == own


@pytest.mark.parametrize("owner", ODD_OWNERS)
async def test_owner_with_odd_characters_has_a_feed_of_their_own(
    site: Site, token: Token, owner: str
) -> None:
    await site.start("own", owner=owner)
    await site.start("other", owner=f"{owner}x")
    async with following(site.url, token(owner)) as socket:
        for feed in ("mine", f"owner:{owner}"):
            view = await join(socket, feed)
            assert view.ids == ["own"]
        await site.start("later", owner=owner)
        await view.until(lambda: set(view.ids) == {"own", "later"}, "the next job")
    async with http_client(site.url, token(owner)) as client:
        page = (await client.get("/jobs", params={"feed": f"owner:{owner}"})).json()
        assert [job["job_id"] for job in page["jobs"]] == ["later", "own"]
        path = f"/feeds/{quote(f'owner:{owner}', safe='')}/events"
        async with streaming(client, path) as (reader, chunks):
            [snapshot] = await read_until(reader, chunks, "feed_snapshot")
            assert snapshot["feed"] == f"owner:{owner}"
            assert [job["owner"] for job in snapshot["jobs"]] == [owner, owner]


@pytest.mark.parametrize("feed", ["all", "owner:bob", "tag:a"])
async def test_feed_without_a_right_is_refused(site: Site, token: Token, feed: str) -> None:
    await site.start("secret", owner="bob", tags=("a",))
    async with (
        following(site.url, token("alice", jobs=["*"], feeds=["tag:b"])) as alice,
        http_client(site.url, token("alice", jobs=["*"])) as client,
    ):
        answer = await alice.request("join_feed", {"feed": feed})
        assert (answer["ok"], answer["code"]) == (False, "feed_not_allowed")
        response = await client.get("/jobs", params={"feed": feed})
        assert code_of(response, 403) == "feed_not_allowed"
        response = await client.get(f"/feeds/{quote(feed)}/events")
        assert code_of(response, 403) == "feed_not_allowed"
        assert "secret" not in str(alice.transcript.events)
    async with following(site.url, token("alice", feeds=[feed])) as alice:
        assert (await join(alice, feed)).ids == ["secret"]


async def test_subject_without_a_possible_feed_is_refused(site: Site, token: Token) -> None:
    async with following(site.url, token("x" * 257)) as socket:
        answer = await socket.request("join_feed", {"feed": "mine"})
        assert answer["code"] == "feed_not_allowed"


async def test_rule_decides_about_every_feed_but_mine(options: Options, token: Token) -> None:
    async with serving(options(authorize=RULE)) as site:
        await site.start("job", tags=("a",))
        async with following(site.url, token("alice", feeds=["*"])) as alice:
            await join(alice)
            assert rules.asked == []
            await join(alice, "tag:a")
            for feed in ("owner:alice", "all"):
                answer = await alice.request("join_feed", {"feed": feed})
                assert answer["code"] == "feed_not_allowed"
    assert rules.asked == [
        ("alice", "list", FeedTarget(name=name)) for name in ("tag:a", "owner:alice", "all")
    ]


async def test_failing_rule_refuses_a_feed(options: Options, token: Token) -> None:
    rule = "tests.integration.feeds.rules:fails"
    async with serving(options(authorize=rule)) as site:
        async with following(site.url, token("alice")) as alice:
            answer = await alice.request("join_feed", {"feed": "tag:a"})
            assert answer["code"] == "internal_error"
            await join(alice)
        async with http_client(site.url, token("alice")) as client:
            assert code_of(await client.get("/feeds/tag:a/events"), 500) == "internal_error"


async def test_reduced_token_leaves_feeds_before_its_refresh_is_acknowledged(
    site: Site, token: Token
) -> None:
    async with following(site.url, token("alice", feeds=["tag:a", "tag:b"])) as alice:
        views = {feed: await join(alice, feed) for feed in ("mine", "tag:a", "tag:b")}
        reduced = token("alice", feeds=["tag:b"])
        assert (await alice.request("refresh_token", {"token": reduced}))["ok"]
        await site.start("job", tags=("a", "b"))
        for feed in ("mine", "tag:b"):
            view = views[feed]
            await view.until_shows({"job": "started"})
            assert view.left is None
        left = views["tag:a"].update()
        assert left.left is not None
        assert left.left["code"] == "feed_not_allowed"
        assert left.ids == []
        names = [name for name, _ in alice.transcript.events]
        assert names.count("feed_left") == 1


async def test_regular_check_ends_the_right_to_a_feed(options: Options, token: Token) -> None:
    async with serving(options(authorize=RULE, reauthorize=0.2)) as site:
        async with (
            following(site.url, token("alice")) as alice,
            http_client(site.url, token("bob")) as client,
            streaming(client, "/feeds/tag:a/events") as (reader, chunks),
        ):
            view, own = await join(alice, "tag:a"), await join(alice)
            await read_until(reader, chunks, "feed_snapshot")
            rules.closed.add("tag:a")
            await view.until(lambda: view.left, "the end of the right")
            async for _ in chunks:  # the stream ends
                pass
            assert reader.names[-1] == "feed_left"
            await site.start("job", tags=("a",))
            await own.until(lambda: own.ids == ["job"], "the job in the own feed")
            assert view.update().ids == []
            assert (await alice.request("join_feed", {"feed": "tag:a"}))["code"] == (
                "feed_not_allowed"
            )


async def test_revoked_token_ends_the_feeds_of_its_connections(site: Site, token: Token) -> None:
    revoked = token("alice", jti="one")
    async with (
        following(site.url, revoked) as alice,
        following(site.url, token("alice")) as other,
        http_client(site.url, revoked) as client,
        streaming(client, "/feeds/mine/events") as (reader, chunks),
    ):
        view, kept = await join(alice), await join(other)
        await read_until(reader, chunks, "feed_snapshot")
        await asyncio.to_thread(revoke, settings=site.settings, jti="one", ttl=600)
        async for _ in chunks:
            pass
        assert reader.names[-1] == "closing"
        await eventually(lambda: not alice.client.connected, "the end of the connection")
        await site.start("job")
        await kept.until(lambda: kept.ids == ["job"], "the job")
        assert view.update().ids == []
        assert code_of(await client.get("/jobs"), 401) == "token_revoked"


async def test_stream_ends_when_its_token_expires(site: Site, token: Token) -> None:
    async with (
        http_client(site.url, token("alice", ttl=SHORT_LIVED)) as client,
        streaming(client, "/feeds/mine/events") as (reader, chunks),
    ):
        async for _ in chunks:
            pass
    assert reader.names[0] == "feed_snapshot"
    assert reader.names[-1] == "token_expiring"
