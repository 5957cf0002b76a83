"""``python -m bench.soak``: soak one transport, or all of them in turn."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Final

from bench.soak.child_process import soak_in_child_process
from bench.soak.report import TRANSPORTS, Options, Report, comparison

TOTAL: Final = 3600.0  # seconds for all transports together


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--transport", choices=TRANSPORTS, default=Options.transport)
    parser.add_argument("--all", action="store_true", help="soak every transport, and compare them")
    parser.add_argument("--seconds", type=float, help="duration of a run (60, or 900 with --all)")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--jobs", type=int, default=Options.jobs, help="concurrent jobs")
    parser.add_argument("--clients", type=int, default=Options.clients)
    parser.add_argument("--keep", action="store_true", help="keep the logs of a successful run")
    arguments = vars(parser.parse_args())
    all_transports, transport = arguments.pop("all"), arguments.pop("transport")
    if arguments["seconds"] is None:
        arguments["seconds"] = TOTAL / len(TRANSPORTS) if all_transports else Options.seconds
    # SIGTERM ends a soak in the same way as Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    reports: list[tuple[str, Report]] = []
    try:
        for name in TRANSPORTS if all_transports else (transport,):
            reports.append((name, soak_in_child_process(Options(transport=name, **arguments))))
            _print(*reports[-1])
    except KeyboardInterrupt:
        sys.exit(130)
    if all_transports:
        print(f"\n{comparison(reports)}")
    sys.exit(0 if all(report.ok for _, report in reports) else 1)


def _print(transport: str, report: Report) -> None:
    print(f"{transport}\n{report.table()}")
    if not report.ok:
        print(f"\n{report.details()}")
    if report.folder.exists():
        print(f"\nlogs: {report.folder}")


if __name__ == "__main__":
    main()
