"""The lease monitor survives errors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from jobcast.errors import TransportUnavailable
from jobcast.liveness.monitor import LeaseMonitor
from jobcast.transports import Outgoing, Run
from jobcast.transports.leases import Finding, Lease, LeaseTimeouts
from tests.support import eventually


class Source:
    """A store that fails in several ways before it returns a finding."""

    def __init__(self) -> None:
        self.failures: list[Exception] = [
            TransportUnavailable("it is away"), ValueError("a bug"), ValueError("a bug"),
        ]  # fmt: skip
        self.published: list[Outgoing] = []
        self.acknowledged: list[Finding] = []

    async def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        if self.failures:
            raise self.failures.pop(0)
        return [] if self.acknowledged else [Finding("lost", Lease("a", Run("s", 1, "d")))]

    async def acknowledge(self, findings: Sequence[Finding], terms: LeaseTimeouts) -> None:
        self.acknowledged += findings

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        self.published += batch


async def test_monitor_survives_errors_and_logs_each_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="jobcast")
    source = Source()
    watch = asyncio.create_task(LeaseMonitor(source, LeaseTimeouts(lease=0.04, lost_after=1)).run())
    await eventually(lambda: source.acknowledged, "an acknowledged finding")
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    assert [outgoing.state for outgoing in source.published] == ["error"]
    lines = [record.message for record in caplog.records]
    assert lines == [
        "could not scan leases: it is away; retrying in 0.0 s",
        "could not scan leases; retrying in 0.0 s",
        "job a: lost (attempt 1)",
    ]  # fmt: skip
