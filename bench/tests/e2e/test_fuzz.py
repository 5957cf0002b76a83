"""A server withstands a minute of fuzzing."""

from __future__ import annotations

from bench.fuzz import Options, fuzz


def test_fuzzed_server_stays_healthy() -> None:
    report = fuzz(Options(seconds=60, seed=7))
    details = "\n\n".join([report.table(), *report.problems, f"log: {report.folder}"])
    assert report.ok, details
    kinds = ("websocket", "polling", "upgrade", "http", "handshake", "stream")
    assert all(report.counts[kind] > 10 for kind in kinds), details
    assert report.counts["events of the innocent client"] > 100, details
    assert {200, 400} <= set(report.statuses), details
