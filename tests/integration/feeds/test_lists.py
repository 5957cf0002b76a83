"""Lists of jobs over Socket.IO: snapshots, pages, filters and changes."""

from __future__ import annotations

import asyncio

import pytest

from jobcast.events import JobComplete, JobInfoUpdate, JobProgress, JobStatus
from jobcast.feeds import FEED_PAGE
from jobcast.realtime.feeds import rooms
from jobcast.transports import Origin, Outgoing, Run
from tests.integration.feeds.site import Options, Site, join, metric, names_of, serving, started
from tests.support import eventually, following, new_id
from tests.support.http_server import Token

MANY = 10_000  # jobs
BATCH = 500  # jobs that are published at once


async def test_jobs_of_the_subject_appear_change_and_end(site: Site, token: Token) -> None:
    before, after = new_id(), new_id()
    await site.start(before, title="March report", tags=("project:7",))
    async with following(site.url, token("alice")) as alice:
        view = await join(alice)
        assert view.ids == [before]
        assert view.jobs[before]["title"] == "March report"
        assert view.jobs[before]["tags"] == ["project:7"]
        assert alice.transcript.hello is not None
        assert {"join_feed", "leave_feed"} <= set(alice.transcript.hello["features"])
        await site.start(after)
        await view.until(lambda: view.ids == [after, before], "the new job")
        await site.publish(JobProgress(job_id=after, percentage=40, message="busy"))
        await view.until(lambda: view.jobs[after].get("percentage") == 40, "its progress")
        await site.publish(JobInfoUpdate(job_id=after, title="Export"))
        await view.until(lambda: view.jobs[after].get("title") == "Export", "its title")
        await site.complete(after)
        await view.until(lambda: view.status_of(after) == "complete", "its end")
        assert "secret" not in str(alice.transcript.events)


async def test_older_jobs_are_sent_on_request_and_followed_from_then_on(
    site: Site, token: Token
) -> None:
    jobs = [new_id() for _ in range(6)]
    await site.start(*jobs)
    async with following(site.url, token("alice")) as alice:
        view = await join(alice, limit=2)
        assert (view.ids, view.total) == (jobs[:3:-1], 6)
        await site.complete(jobs[0], jobs[3])
        await site.complete(jobs[5])
        await view.until(lambda: view.status_of(jobs[5]) == "complete", "a job of the page")
        assert set(view.ids) == {jobs[4], jobs[5]}
        answer = await alice.request(
            "join_feed", {"feed": "mine", "after": view.cursor, "limit": 3}
        )
        assert (answer["ok"], answer["total"]) == (True, 6)
        await view.until(lambda: len(view.ids) == 5, "the next page")
        assert (view.snapshots, view.status_of(jobs[3])) == (1, "complete")
        await alice.request("join_feed", {"feed": "mine", "after": view.cursor})
        await view.until(lambda: view.cursor is None, "the last page")
        assert view.ids == jobs[::-1]
        assert view.status_of(jobs[0]) == "complete"


async def test_long_snapshot_has_several_messages_in_order(site: Site, token: Token) -> None:
    jobs = [new_id() for _ in range(2 * FEED_PAGE + 1)]
    await site.publish(*map(started, jobs))
    await site.wait_in("owner:alice", *jobs, status="started")
    async with following(site.url, token("alice")) as alice:
        view = await join(alice, limit=MANY)
        assert names_of(alice.transcript.events, "mine") == ["feed_snapshot"] * 3
        received = [job for _, page in alice.transcript.events for job in page["jobs"]]
        assert [job["job_id"] for job in received] == view.ids
        assert sorted(view.ids) == sorted(jobs)
        assert view.cursor is None


async def test_job_that_no_longer_matches_the_filter_is_gone(site: Site, token: Token) -> None:
    running, queued = new_id(), new_id()
    await site.publish(JobStatus(job_id=queued, status="queued"))
    await site.wait_in("owner:alice", queued, status="queued")
    await site.start(running)
    async with following(site.url, token("alice")) as alice:
        view = await join(alice, filter={"status": ["running"]})
        assert (view.ids, view.total) == ([running], 1)
        await site.start(queued)
        await view.until(lambda: set(view.ids) == {running, queued}, "the job that starts")
        await site.complete(running)
        await view.until(lambda: view.ids == [queued], "the end of the other one")
        assert "feed_gone" in names_of(alice.transcript.events, "mine")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"tag": "x"}, {"tagged"}),
        ({"task": "shop.export", "status": ["complete", "running"]}, {"tagged", "plain"}),
        ({"task": "shop.import"}, set()),
        ({"owner": "alice"}, {"tagged", "plain"}),
        ({"owner": "bob"}, set()),
        ({"since": "2026-01-01T00:00:00Z"}, {"tagged", "plain"}),
        ({"since": "2999-01-01T00:00:00Z"}, set()),
        ({"status": ["failed"]}, set()),
        ({}, {"tagged", "plain"}),
    ],
)
async def test_filters_apply_to_the_snapshot(
    site: Site, token: Token, wanted: dict[str, object], expected: set[str]
) -> None:
    await site.start("tagged", tags=("x",))
    await site.start("plain")
    async with following(site.url, token("alice")) as alice:
        view = await join(alice, filter=wanted)
        assert set(view.ids) == expected
        assert view.total == len(expected)


async def test_repeated_join_starts_over_with_its_own_filter(site: Site, token: Token) -> None:
    first, second = new_id(), new_id()
    await site.start(first, second)
    await site.complete(first)
    async with following(site.url, token("alice")) as alice:
        await join(alice, filter={"status": ["running"]})
        view = await join(alice, filter={"status": ["complete"]})
        assert (view.ids, view.snapshots) == ([first], 1)
        await site.complete(second)
        await view.until(lambda: set(view.ids) == {first, second}, "the second end")


async def test_one_job_is_in_every_feed_that_it_belongs_to(site: Site, token: Token) -> None:
    feeds = ("mine", "owner:alice", "tag:a", "all")
    async with following(site.url, token("alice", feeds=["*"])) as alice:
        views = [await join(alice, feed) for feed in feeds]
        await site.start("job", tags=("a", "b"))
        for view in views:
            await view.until(lambda view=view: view.ids == ["job"], f"the job in {view.feed}")
        await site.complete("job")
        for view in views:
            await view.until(
                lambda view=view: view.status_of("job") == "complete", f"its end in {view.feed}"
            )


async def test_left_feed_sends_nothing(site: Site, token: Token) -> None:
    async with following(site.url, token("alice", feeds=["all"])) as alice:
        view, other = await join(alice), await join(alice, "all")
        assert await alice.request("leave_feed", {"feed": "mine"}) == {"ok": True, "feed": "mine"}
        assert await alice.request("leave_feed", {"feed": "mine"}) == {"ok": True, "feed": "mine"}
        await site.start("job")
        await other.until(lambda: other.ids == ["job"], "the job in the other feed")
        assert view.update().ids == []
        answer = await alice.request("join_feed", {"feed": "mine", "after": "1~a"})
        assert answer["code"] == "invalid_request"


async def test_job_that_is_sent_again_by_another_owner_moves_to_their_feed(
    site: Site, token: Token
) -> None:
    async with (
        following(site.url, token("alice")) as alice,
        following(site.url, token("bob")) as bob,
    ):
        of_alice, of_bob = await join(alice), await join(bob)
        await site.start("nightly", title="alice's", tags=("a",))
        await of_alice.until(lambda: of_alice.ids == ["nightly"], "the job of alice")
        run = Run("bbbbbbbbbbbb", 1, "222222222222")
        await site.publish(started("nightly", title="bob's"), owner="bob", run=run)
        await of_bob.until(lambda: of_bob.ids == ["nightly"], "the job of bob")
        await of_alice.until(lambda: of_alice.ids == [], "the removal from the list of alice")
        await site.publish(JobComplete(job_id="nightly", result=1), owner="bob", run=run)
        await of_bob.until(lambda: of_bob.status_of("nightly") == "complete", "its end")
        assert "bob's" not in str(alice.transcript.events)
        assert "alice's" not in str(bob.transcript.events)
        assert (await join(alice)).ids == []


async def test_ten_thousand_jobs_with_a_filter(site: Site, token: Token) -> None:
    jobs = [new_id() for _ in range(MANY)]
    for start in range(0, MANY, BATCH):
        batch = jobs[start : start + BATCH]
        events = [started(job_id, tags=("rare",) * (job_id in jobs[:3])) for job_id in batch]
        publish = site.publisher.publish
        outgoing = [
            Outgoing.of(event, Origin(owner=f"user-{number % 20}"))
            for number, event in enumerate(events)
        ]
        await asyncio.to_thread(publish, outgoing)
    await site.wait_in("all", *jobs, status="started")
    async with following(site.url, token("root", feeds=["*"])) as root:
        rare = await join(root, "all", filter={"tag": "rare", "status": ["running"]})
        assert (sorted(rare.ids), rare.total) == (sorted(jobs[:3]), 3)
        everything = await join(root, "all", limit=MANY)
        assert everything.total == MANY
        assert set(everything.ids) == set(jobs)
        await site.complete(jobs[1], owner="user-1")
        await everything.until(lambda: everything.status_of(jobs[1]) == "complete", "the end")
        owner = await join(root, "owner:user-7", limit=MANY)
        assert set(owner.ids) == set(jobs[7::20])


async def test_process_receives_nothing_of_a_feed_without_followers(
    site: Site, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "LINGER", 0.0)
    received = "jobcast_feed_changes_received_total"
    open_feeds = metric("jobcast_feeds")
    async with following(site.url, token("alice")) as alice:
        before = metric(received)
        await site.start("never-followed", tags=("a",))
        view = await join(alice)
        await site.start("followed", owner="alice")
        await view.until(lambda: "followed" in view.ids, "the job")
        # Not those of tag:a and all. A job may change again when it is written.
        assert metric(received) <= before + 2
        await alice.request("leave_feed", {"feed": "mine"})
        await eventually(lambda: metric("jobcast_feeds") == open_feeds, "the end of the room")
        before = metric(received)
        await site.start("after", owner="alice")
        assert (await join(alice)).ids == ["after", "followed", "never-followed"]
        assert metric(received) == before


async def test_unused_room_serves_the_next_client_without_another_read(
    options: Options, token: Token
) -> None:
    async with serving(options()) as site:
        await site.start("one")
        async with following(site.url, token("alice")) as alice:
            await join(alice)
            [room] = site.gateway.hub._feed_rooms._rooms.values()
        await eventually(lambda: room.is_unused, "the end of the connection")
        reading = room.reading
        await site.start("two")
        async with following(site.url, token("alice")) as alice:
            assert (await join(alice)).ids == ["two", "one"]
        assert room.reading is reading
