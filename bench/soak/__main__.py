"""``python -m bench.soak``: one transport, or all of them one after the other."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Final

from bench.soak.child_process import soak_apart
from bench.soak.report import TRANSPORTS, Options, Report, comparison

HOUR: Final = 3600.0  # seconds that all transports take together


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--transport", choices=TRANSPORTS, default=Options.transport)
    parser.add_argument("--all", action="store_true", help="every transport, and one table")
    parser.add_argument("--seconds", type=float, help="of a run; by default 60, or 900 with --all")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--jobs", type=int, default=Options.jobs, help="at a time")
    parser.add_argument("--clients", type=int, default=Options.clients)
    parser.add_argument("--keep", action="store_true", help="the logs, also if all is well")
    arguments = vars(parser.parse_args())
    everything, transport = arguments.pop("all"), arguments.pop("transport")
    if arguments["seconds"] is None:
        arguments["seconds"] = HOUR / len(TRANSPORTS) if everything else Options.seconds
    # Whoever says SIGTERM means the same as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    reports: list[tuple[str, Report]] = []
    try:
        for name in TRANSPORTS if everything else (transport,):
            reports.append((name, soak_apart(Options(transport=name, **arguments))))
            _show(*reports[-1])
    except KeyboardInterrupt:
        sys.exit(130)
    if everything:
        print(f"\n{comparison(reports)}")
    sys.exit(0 if all(report.ok for _, report in reports) else 1)


def _show(transport: str, report: Report) -> None:
    print(f"{transport}\n{report.table()}")
    if not report.ok:
        print(f"\n{report.details()}")
    if report.folder.exists():
        print(f"\nthe logs are in {report.folder}")


if __name__ == "__main__":
    main()
