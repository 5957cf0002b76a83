"""The fan-out report computes ratios and targets, and the page shows the stored figures."""

from __future__ import annotations

import json

from bench.fanout import report
from bench.fanout.__main__ import DOCS
from bench.fanout.scenarios import INTERFACE_ROWS, ROWS, Sample
from bench.fanout.variants import VARIANTS


def test_page_shows_the_stored_figures() -> None:
    figures = json.loads((DOCS / report.FIGURES).read_text())
    page = (DOCS / report.PAGE).read_text()
    assert report.with_block(page, "table", report.table(figures["rows"])) == page
    assert report.with_block(page, "growth", report.growth_table(figures["growth"])) == page


def test_page_of_the_interfaces_shows_the_stored_figures() -> None:
    figures = json.loads((DOCS / report.INTERFACE_FIGURES).read_text())
    assert [row["name"] for row in figures["rows"]] == [row.name for row in INTERFACE_ROWS]
    page = (DOCS / report.INTERFACE_PAGE).read_text()
    table = report.interface_table(figures["rows"])
    assert report.with_block(page, "interfaces", table) == page


def test_publisher_has_its_own_row() -> None:
    run = {
        "progress": 400.0, "log": 3000.0, "update_state": 300_000.0, "publisher": 5000.0,
        "drained": 40_000.0, "batch": 200.0,
    }  # fmt: skip
    rows = report.caller_rows([run, run, run])
    table = report.table(rows)
    assert "us a line" in table
    assert "publisher: 40,000 lines/s continuously, 200 per pipeline" in table
    assert report.missed(rows) == []


def test_row_without_cost_has_no_ratio() -> None:
    row = next(row for row in ROWS if row.name == "unfollowed-bytes")
    found = report.summary(row, {"jobcast": [Sample(0.0)], "stock": [Sample(300.0)]})
    assert found["ratio"] == {}
    assert report.table([found]).splitlines()[1].split()[-4:] == ["0", "300", "-", "-"]


def test_missed_targets_are_marked() -> None:
    row = next(row for row in ROWS if row.name == "connect")
    costs = {"jobcast": (100, 110, 900), "stock": (160, 170, 150), "node": (120, 100, 130)}
    found = report.summary(row, {name: [Sample(c) for c in some] for name, some in costs.items()})
    assert found["cost"] == {"jobcast": 110, "stock": 160, "node": 120}
    assert [line.rsplit(": ", 1)[1] for line in report.missed([found])] == [
        "1.45x of stock, should be 1.50x", "1.09x of node, should be 1.20x",
    ]  # fmt: skip
    assert "160 (1.45x !)" in report.table([found])


def test_optimization_has_one_line_with_both_costs() -> None:
    row = next(row for row in ROWS if row.name == "relaxed-gc")
    found = report.summary(row, {"jobcast": [Sample(1000.0)], "default-gc": [Sample(1250.0)]})
    assert report.missed([found]) == []
    assert report.table([found]).splitlines()[1:] == [
        "1,000 clients reconnect at once, relaxed_gc: 1,000 us a client on, 1,250 off (1.25x)"
    ]


def test_every_variant_has_a_row() -> None:
    assert {row.peers for row in ROWS} >= {("jobcast", name) for name in VARIANTS}
