"""Lists after interruptions of the transport."""

from __future__ import annotations

from jobcast.settings import Settings
from tests.conftest import Valkey
from tests.integration.feeds.site import join, serving
from tests.support import SECRET, eventually, following
from tests.support.feed_client import FeedView
from tests.support.http_server import Token, code_of
from tests.support.sse import http_client, read_until, streaming


async def test_list_is_correct_after_a_restart_of_redis(own_valkey: Valkey, token: Token) -> None:
    settings = Settings(url=own_valkey.url, jwt_secret=SECRET, drain_seconds=0)
    async with serving(settings) as site:
        await site.start("one", "two", "three")
        async with (
            following(site.url, token("alice")) as alice,
            http_client(site.url, token("alice")) as client,
            streaming(client, "/feeds/mine/events") as (reader, chunks),
        ):
            view, streamed = await join(alice), FeedView("mine", reader.events)
            await read_until(reader, chunks, "feed_snapshot")
            own_valkey.kill()
            await eventually(lambda: not site.gateway.ready, "the loss of the connection")
            assert code_of(await client.get("/jobs"), 503) == "unavailable"
            assert (await alice.request("join_feed", {"feed": "owner:alice"}))["code"] == (
                "unavailable"
            )
            own_valkey.start()
            own_valkey.ready()
            await eventually(lambda: site.gateway.ready, "the connection")
            await site.start("four")
            await site.complete("one")
            page = (await client.get("/jobs")).json()
            expected = {job["job_id"]: job["status"] for job in page["jobs"]}
            assert (expected["one"], expected["four"]) == ("complete", "started")
            await view.until(
                lambda: {name: job["status"] for name, job in view.jobs.items()} == expected,
                "the list of the store",
            )
            while {n: j["status"] for n, j in streamed.update().jobs.items()} != expected:
                await anext(chunks)


async def test_changes_during_an_interruption_arrive_after_it(
    own_valkey: Valkey, token: Token
) -> None:
    settings = Settings(url=own_valkey.url, jwt_secret=SECRET, drain_seconds=0)
    async with serving(settings) as site:
        await site.start("one")
        async with following(site.url, token("alice")) as alice:
            view = await join(alice)
            for number in range(3):
                own_valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
                await site.start(f"job-{number}")
                await site.complete(f"job-{number}")
            expected = {"one", "job-0", "job-1", "job-2"}
            await view.until(
                lambda: (
                    {n for n, j in view.jobs.items() if j["status"] == "complete"}
                    == expected - {"one"}
                    and set(view.ids) == expected
                ),
                "every job",
            )
            assert view.snapshots == 1
