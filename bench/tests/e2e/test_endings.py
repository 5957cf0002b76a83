"""Jobs whose workers are killed: each job ends exactly once."""

from __future__ import annotations

from bench.endings import Options, endings


def test_every_job_ends_once_while_workers_are_killed() -> None:
    report = endings(Options(jobs=100, seed=7))
    details = "\n".join([report.table(), *report.problems, f"logs: {report.folder}"])
    assert report.ok, details
    assert set(report.faults) == {"child killed", "worker killed"}, details
    assert {"complete", "error: worker_lost"} <= set(report.endings), details
