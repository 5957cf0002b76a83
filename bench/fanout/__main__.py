"""jobcast, the stock stack, Node's socket.io and the floor, side by side in one run.

python -m bench.fanout [--runs N] [--only NAME ...] [--no-growth] [--docs FOLDER]

A whole run writes its figures and its plot into the docs, and its tables into their text; a part of
it does so only where ``--docs`` says.

Costs are CPU time of the server under test, user and system, from the kernel's clock of the
process; each is the median of several runs in which the peers take turns. In parentheses: how many
times jobcast's cost it is, and whether that is what was aimed at. The floor is a loop that does
nothing but write prepared frames to the same sockets. Clients check what they receive: count and
order.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from bench.fanout import report
from bench.fanout.scenarios import ROWS, Sample, caller, growth, samples

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout")
    parser.add_argument("--runs", type=int, default=3)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="*", choices=[*names, "caller"])
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--docs", type=Path)
    options = parser.parse_args()
    only = [*names, "caller"] if options.only is None else options.only
    rows = []
    for row in ROWS:
        if row.name in only:
            found: defaultdict[str, list[Sample]] = defaultdict(list)
            for name, sample in samples(row, options.runs):
                found[name].append(sample)
                print(f"... {row.name}, {name}: {sample.cost:.3g} {row.unit}", flush=True)
            rows.append(report.summary(row, found))
    if "caller" in only:
        rows += report.caller_rows([caller() for _ in range(options.runs)])
    sizes = growth(options.runs) if options.growth else {}
    print(report.table(rows))
    print(report.growth_table(sizes))
    for line in report.missed(rows):
        print("missed:", line)
    whole = options.only is None and options.growth
    docs = options.docs or (DOCS if whole else None)
    if docs is not None:
        figures = {"machine": report.machine(), "runs": options.runs, "rows": rows, "growth": sizes}
        report.write(figures, docs)


if __name__ == "__main__":
    main()
