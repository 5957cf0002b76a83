r"""Compare jobcast with the stock stack, Node's socket.io and the floor in one run.

python -m bench.fanout [--runs N] [--only NAME ...] [--no-growth] [--docs FOLDER]

A complete run writes its figures, its plot and its tables into the docs. A partial run does so only
with ``--docs``, but the rows of the interfaces have a page of their own, which a run of all of them
writes:

python -m bench.fanout --no-growth --only interface-burst interface-steady interface-connect \
    interface-memory poll

Costs are the server's CPU time, user and system, from the kernel's clock of the process. Each is
the median of several runs in which the peers take turns. The parentheses give the ratio to
jobcast's cost, and whether it meets the target. The floor is a loop that only writes prepared
frames to the same sockets. Clients check the number and the order of their events.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from bench.fanout import report
from bench.fanout.scenarios import INTERFACE_ROWS, ROWS, Row, Sample, caller, growth, samples

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout")
    parser.add_argument("--runs", type=int, default=3, help="runs per figure")
    names = [row.name for row in (*ROWS, *INTERFACE_ROWS)]
    parser.add_argument("--only", nargs="*", choices=[*names, "caller"], help="rows to measure")
    parser.add_argument(
        "--growth", action=argparse.BooleanOptionalAction, default=True, help="measure growth"
    )
    parser.add_argument("--docs", type=Path, help="the folder of the docs to write to")
    options = parser.parse_args()
    only = [*names, "caller"] if options.only is None else options.only
    rows = measure(ROWS, only, options.runs)
    if "caller" in only:
        rows += report.caller_rows([caller() for _ in range(options.runs)])
    sizes = growth(options.runs) if options.growth else {}
    interfaces = measure(INTERFACE_ROWS, only, options.runs)
    if rows or sizes:
        print(report.table(rows))
        print(report.growth_table(sizes))
    if interfaces:
        print(report.interface_table(interfaces))
    for line in report.missed(rows):
        print("missed:", line)
    common = {"machine": report.machine(), "runs": options.runs}
    docs = options.docs or (DOCS if options.only is None and options.growth else None)
    if docs is not None and rows:
        report.write({**common, "rows": rows, "growth": sizes}, docs)
    if len(interfaces) == len(INTERFACE_ROWS):
        report.write_interfaces({**common, "rows": interfaces}, options.docs or DOCS)


def measure(rows: Sequence[Row], only: Collection[str], runs: int) -> list[dict[str, Any]]:
    """Measure those of the rows that are named in ``only``."""
    summaries: list[dict[str, Any]] = []
    for row in rows:
        if row.name in only:
            measured: defaultdict[str, list[Sample]] = defaultdict(list)
            for name, sample in samples(row, runs):
                measured[name].append(sample)
                print(f"... {row.name}, {name}: {sample.cost:.3g} {row.unit}", flush=True)
            summaries.append(report.summary(row, measured))
    return summaries


if __name__ == "__main__":
    main()
