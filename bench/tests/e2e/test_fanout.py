"""The fan-out benchmark runs against every peer and notices missing events."""

from __future__ import annotations

import asyncio

import pytest

from bench.fanout.peers import NODE, peer
from bench.fanout.variants import VARIANTS
from tests.support.node import install_packages

EVENTS = 500


@pytest.fixture(scope="module")
def node_packages() -> None:
    """Install the packages of the peer in Node."""
    install_packages(NODE)


@pytest.mark.usefixtures("node_packages")
@pytest.mark.parametrize(
    "name", ["jobcast", *VARIANTS, "stock", "node", "floor", "sse", "starlette"]
)
async def test_every_client_gets_every_event_in_order(name: str) -> None:
    def run() -> None:
        with peer(name) as server:
            server.connect(["job"] * 20)
            for events in (1, 30):
                server.publish(["job"], events)
                answer = server.expect(events)
                server.wait_published()
                assert (answer["missing"], answer["disorder"]) == (0, 0)
                assert len(answer["latencies"]) == 2 * events  # of every tenth client

    await asyncio.to_thread(run)


async def test_more_clients_than_one_subject_may_have_connections() -> None:
    def run() -> None:
        with peer("sse") as server:
            assert server.connect(["job"] * 1200)["failed"] == 0

    await asyncio.to_thread(run)


async def test_poll_reads_the_state_of_a_job() -> None:
    def run() -> None:
        with peer("jobcast") as server:
            server.publish(["job"], 3)
            server.wait_published()
            cpu = server.cpu()
            assert server.poll(["job"] * 50, 20)["seconds"] > 0
            assert server.cpu() > cpu

    await asyncio.to_thread(run)


@pytest.mark.parametrize("name", ["jobcast", "sse"])
async def test_missing_event_fails_the_run(name: str) -> None:
    def run() -> None:
        with peer(name) as server:
            server.connect(["job", "another"])
            server.publish(["job"], 3)
            server.wait_published()
            with pytest.raises(RuntimeError, match="'missing': 3"):
                server.expect(3, timeout=8)

    await asyncio.to_thread(run)


@pytest.mark.usefixtures("node_packages")
@pytest.mark.parametrize("name", ["jobcast", "stock", "node"])
async def test_only_jobcast_receives_no_events_of_jobs_without_followers(name: str) -> None:
    def received() -> int:
        with peer(name) as server:
            server.connect(["another"])
            before = server.subscribed_bytes()
            server.publish(["job"], EVENTS)
            server.wait_published()
            server.publish(["another"], 1)
            server.wait_published()
            server.expect(1)
            return server.subscribed_bytes() - before

    # jobcast receives the packet of the one followed event, its channel's name, and at most one
    # canary a second.
    size = await asyncio.to_thread(received)
    assert 100 < size < 20 * EVENTS if name == "jobcast" else size > 100 * EVENTS


@pytest.mark.usefixtures("node_packages")
@pytest.mark.parametrize("name", ["jobcast", "stock", "node", "sse", "starlette"])
async def test_measurements_are_of_the_server_process(name: str) -> None:
    def run() -> None:
        with peer(name) as server:
            memory, cpu = server.reset_peak(), server.cpu()
            server.connect(["job"] * 200)
            assert server.reconnect()["failed"] == 0
            assert memory < server.peak()
            assert server.cpu() - cpu > 0.02  # seconds, for 400 connections

    await asyncio.to_thread(run)
