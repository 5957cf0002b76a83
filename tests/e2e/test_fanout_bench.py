"""The fan-out benchmark runs, and its checks work. No test asserts its measurements."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest

from bench.fanout import report
from bench.fanout.__main__ import DOCS
from bench.fanout.peers import NODE, peer
from bench.fanout.scenarios import ROWS, Sample
from tests.e2e.stock import command

EVENTS = 500


@pytest.fixture(scope="module")
def node_packages() -> None:
    """Install the dependencies of the Node.js peer from its lock file."""
    if not (NODE / "node_modules").exists():
        subprocess.run([command("npm"), "ci", "--silent"], cwd=NODE, check=True, timeout=300)


@pytest.mark.usefixtures("node_packages")
@pytest.mark.parametrize("name", ["jobcast", "stock", "node", "floor"])
async def test_every_client_gets_every_event_in_order(name: str) -> None:
    def run() -> None:
        with peer(name) as server:
            server.connect(["job"] * 20)
            for events in (1, 30):
                server.publish(["job"], events)
                answer = server.expect(events)
                server.published()
                assert (answer["missing"], answer["disorder"]) == (0, 0)
                assert len(answer["latencies"]) == 2 * events  # of every tenth client

    await asyncio.to_thread(run)


async def test_missing_event_fails_the_run() -> None:
    def run() -> None:
        with peer("jobcast") as server:
            server.connect(["job", "another"])
            server.publish(["job"], 3)
            server.published()
            with pytest.raises(RuntimeError, match="'missing': 3"):
                server.expect(3, timeout=1)

    await asyncio.to_thread(run)


@pytest.mark.usefixtures("node_packages")
@pytest.mark.parametrize("name", ["jobcast", "stock", "node"])
async def test_only_jobcast_receives_nothing_of_unfollowed_jobs(name: str) -> None:
    def received_bytes() -> int:
        with peer(name) as server:
            server.connect(["another"])
            before = server.heard()
            server.publish(["job"], EVENTS)
            server.published()
            server.publish(["another"], 1)
            server.published()
            server.expect(1)
            return server.heard() - before

    # The one followed event costs a packet and its channel's name. Canaries come at most once a
    # second.
    received = await asyncio.to_thread(received_bytes)
    assert 100 < received < 20 * EVENTS if name == "jobcast" else received > 100 * EVENTS


@pytest.mark.usefixtures("node_packages")
@pytest.mark.parametrize("name", ["jobcast", "stock", "node"])
async def test_measurements_cover_the_server_and_not_its_launcher(name: str) -> None:
    def run() -> None:
        with peer(name) as server:
            memory, cpu = server.forget_peak(), server.cpu()
            server.connect(["job"] * 200)
            assert server.reconnect()["failed"] == 0
            assert memory < server.peak()
            assert server.cpu() - cpu > 0.02  # seconds, for 400 connections

    await asyncio.to_thread(run)


def test_docs_show_the_stored_figures() -> None:
    figures = json.loads((DOCS / report.FIGURES).read_text())
    page = (DOCS / report.PAGE).read_text()
    assert report.with_block(page, "table", report.table(figures["rows"])) == page
    assert report.with_block(page, "growth", report.growth_table(figures["growth"])) == page


def test_publisher_has_a_separate_row() -> None:
    run = {
        "progress": 400.0, "log": 3000.0, "update_state": 300_000.0, "publisher": 5000.0,
        "drained": 40_000.0, "batch": 200.0,
    }  # fmt: skip
    rows = report.caller_rows([run, run, run])
    table = report.table(rows)
    assert "us a line" in table
    assert "publisher: 40,000 lines/s for as long as they come, 200 in a pipeline" in table
    assert report.missed(rows) == []


def test_zero_cost_has_no_ratio() -> None:
    row = next(row for row in ROWS if row.name == "unheard")
    found = report.summary(row, {"jobcast": [Sample(0.0)], "stock": [Sample(300.0)]})
    assert found["ratio"] == {}
    assert report.table([found]).splitlines()[1].split()[-4:] == ["0", "300", "-", "-"]


def test_table_marks_missed_targets() -> None:
    row = next(row for row in ROWS if row.name == "connect")
    costs = {"jobcast": (100, 110, 900), "stock": (160, 170, 150), "node": (120, 100, 130)}
    found = report.summary(row, {name: [Sample(c) for c in some] for name, some in costs.items()})
    assert found["cost"] == {"jobcast": 110, "stock": 160, "node": 120}
    assert [line.rsplit(": ", 1)[1] for line in report.missed([found])] == [
        "1.45x of stock, should be 1.50x", "1.09x of node, should be 1.20x",
    ]  # fmt: skip
    assert "160 (1.45x !)" in report.table([found])
