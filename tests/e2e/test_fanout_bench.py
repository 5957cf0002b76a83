"""The benchmark runs, and what it checks is right; what it measures is no test's business."""

from __future__ import annotations

import asyncio

import pytest

from bench.fanout import report
from bench.fanout.peers import peer
from bench.fanout.scenarios import ROWS, Sample


@pytest.mark.parametrize("name", ["jobcast", "stock", "floor"])
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


async def test_what_is_missing_fails_the_run() -> None:
    def run() -> None:
        with peer("jobcast") as server:
            server.connect(["job", "another"])
            server.publish(["job"], 3)
            server.published()
            with pytest.raises(RuntimeError, match="'missing': 3"):
                server.expect(3, timeout=1)

    await asyncio.to_thread(run)


def test_the_table_says_what_was_aimed_at_and_missed() -> None:
    row = next(row for row in ROWS if row.name == "connect")
    costs = {"jobcast": (100, 110, 900), "stock": (160, 170, 150), "node": (120, 100, 130)}
    found = report.summary(row, {name: [Sample(c) for c in some] for name, some in costs.items()})
    assert found["cost"] == {"jobcast": 110, "stock": 160, "node": 120}
    assert [line.rsplit(": ", 1)[1] for line in report.missed([found])] == [
        "1.45x of stock, should be 1.50x", "1.09x of node, should be 1.20x",
    ]  # fmt: skip
    assert "160 (1.45x !)" in report.table([found])
