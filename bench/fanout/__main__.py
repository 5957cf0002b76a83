"""jobcast, the stock stack, Node's socket.io and the floor, side by side in one run.

python -m bench.fanout [--runs N] [--only NAME ...] [--no-growth] [--json PATH] [--plot PATH]

Costs are CPU time of the server under test, user and system, from the kernel's clock of the
process; each is the median of several runs in which the peers take turns. In parentheses: how many
times jobcast's cost it is, and whether that is what was aimed at. The floor is a loop that does
nothing but write prepared frames to the same sockets. Clients check what they receive: count and
order.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from bench.fanout import report
from bench.fanout.scenarios import ROWS, Sample, caller, growth, samples


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout")
    parser.add_argument("--runs", type=int, default=3)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="*", choices=[*names, "caller"], default=[*names, "caller"])
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rows = []
    for row in ROWS:
        if row.name in options.only:
            found: defaultdict[str, list[Sample]] = defaultdict(list)
            for name, sample in samples(row, options.runs):
                found[name].append(sample)
                print(f"... {row.name}, {name}: {sample.cost:.3g} {row.unit}", flush=True)
            rows.append(report.summary(row, found))
    if "caller" in options.only:
        rows += report.caller_rows([caller() for _ in range(options.runs)])
    sizes = growth(options.runs) if options.growth else {}
    print(report.table(rows))
    for title, costs in sizes.items():
        print(f"{title}:", ", ".join(f"{size}: {cost:.3g} us" for size, cost in costs.items()))
    for line in report.missed(rows):
        print("missed:", line)
    if options.json:
        figures = {"machine": report.machine(), "rows": rows, "growth": sizes}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.plot:
        report.plot(rows, sizes, options.plot)


if __name__ == "__main__":
    main()
