"""Whole soaks, shortened: no event is lost, repeated or reordered while faults happen."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from bench.soak.child_process import soak_in_child_process
from bench.soak.report import TRANSPORTS, Options, Transport
from tests.support import TIMEOUT, Process


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_event_is_lost_repeated_or_reordered_during_faults(transport: Transport) -> None:
    report = soak_in_child_process(
        Options(transport=transport, seconds=12, seed=7, jobs=4, clients=8)
    )
    details = f"{report.table()}\n\n{report.details()}\n\nlogs: {report.folder}"
    assert (report.lost, report.repeated, report.reordered, report.wrong) == (0, 0, 0, 0), details
    assert not report.server_errors, details
    assert all(report.faults.values()), details
    assert report.counts["joins that recovered"], details
    assert report.counts["streams that resumed"], details


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_interrupted_soak_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.soak", "--seconds", "600", "--jobs", "2"]
    soak = Process(command, tmp_path / "soak.log", {"TMPDIR": str(tmp_path)})
    main = psutil.Process(soak.popen.pid)
    try:
        soak.expect(lambda: [*tmp_path.glob("jobcast-soak-*/soak-1.log")], "worker")
        children = main.children(recursive=True)
        assert any("celery" in process.cmdline() for process in children)
        soak.popen.send_signal(number)
        _, alive = psutil.wait_procs([main, *children], timeout=TIMEOUT)
        assert alive == []
    finally:
        for process in main.children(recursive=True) if main.is_running() else ():
            process.kill()
        soak.kill()
