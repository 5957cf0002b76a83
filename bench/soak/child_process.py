"""Run a soak in a child process."""

from __future__ import annotations

import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection

from bench.soak.report import Options, Report
from bench.soak.run import soak


def soak_in_child_process(options: Options) -> Report:
    """Run a soak in a child process, because Celery's app keeps its first connections.

    Raises:
        RuntimeError: the child ended without a report; its error is on standard error.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_report, args=(options, sender), name="jobcast-soak")
    child.start()
    sender.close()
    try:
        report: Report = receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the soak ended with {child.exitcode} and without a report") from None
    finally:
        receiver.close()
        child.terminate()  # after an error the child may still run
        child.join()
    return report


def _send_report(options: Options, sender: Connection) -> None:
    # Ctrl-C reaches the parent, too, which terminates this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sender.send(soak(options))
