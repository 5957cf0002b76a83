"""``python -m bench.feed_chaos``: run the chaos of feeds, and print the report."""

from __future__ import annotations

import argparse
import sys

from bench.feed_chaos.report import Options
from bench.feed_chaos.run import feed_chaos


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.feed_chaos")
    parser.add_argument("--jobs", type=int, default=Options.jobs)
    parser.add_argument("--owners", type=int, default=Options.owners)
    parser.add_argument("--seconds", type=float, default=Options.seconds, help="seconds of faults")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--keep", action="store_true", help="keep the logs of a successful run")
    report = feed_chaos(Options(**vars(parser.parse_args())))
    print(report.table())
    if report.problems:
        print(f"\n{report.details()}")
    if report.folder.exists():
        print(f"\nlogs: {report.folder}")
    sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    main()
