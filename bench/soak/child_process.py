"""A run in a process of its own."""

from __future__ import annotations

import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection

from bench.soak.report import Options, Report
from bench.soak.run import soak


def soak_apart(options: Options) -> Report:
    """Run it in a process of its own: Celery's app keeps what it has connected to.

    Raises:
        RuntimeError: it ended without a report; standard error says why.
    """
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(options, sending), name="jobcast-soak")
    child.start()
    sending.close()
    try:
        report: Report = receiving.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the soak ended with {child.exitcode}, and no report") from None
    finally:
        receiving.close()
        child.terminate()  # it has ended, or has to
        child.join()
    return report


def _report(options: Options, sending: Connection) -> None:
    # Whoever presses Ctrl-C means the parent, which passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sending.send(soak(options))
