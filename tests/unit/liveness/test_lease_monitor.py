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

    async def publish(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        self.published += batch
        return [*batch]


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


class Findings:
    """A store with findings of one scan."""

    def __init__(self, *findings: Finding, has_ended: bool = False) -> None:
        self.findings = findings
        self.published: list[Outgoing] = []
        self._has_ended = has_ended

    async def scan(self, terms: LeaseTimeouts) -> list[Finding]:
        return [*self.findings]

    async def acknowledge(self, findings: Sequence[Finding], terms: LeaseTimeouts) -> None: ...

    async def publish(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        self.published += batch
        return [] if self._has_ended else [*batch]


@pytest.mark.parametrize(
    ("run", "events"),
    [
        (Run("s", 1, "d"), [("started", "stalled"), ("stalled", "started"), ("stalled", "error")]),
        (Run("s", 0, "d"), [("queued", "stalled"), ("stalled", "queued"), ("stalled", "error")]),
    ],
    ids=["run", "reservation"],
)
async def test_findings_become_events_for_the_state_of_their_job(
    run: Run, events: list[tuple[str, str]]
) -> None:
    lease = Lease("a", run)
    source = Findings(Finding("stalled", lease), Finding("revived", lease), Finding("lost", lease))
    await LeaseMonitor(source, LeaseTimeouts()).scan()
    assert [(event.requires, event.state) for event in source.published] == events
    reason = '"rejected"' if run.attempt == 0 else '"worker_lost"'
    assert reason in source.published[-1].head


async def test_lease_that_expires_after_the_end_is_neither_logged_nor_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="jobcast")
    published: list[Finding] = []
    source = Findings(Finding("stalled", Lease("a", Run("s", 1, "d"))), has_ended=True)
    await LeaseMonitor(source, LeaseTimeouts(), published.append).scan()
    assert source.published
    assert published == []
    assert caplog.text == ""
