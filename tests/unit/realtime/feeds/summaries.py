"""Summaries of jobs, and the connection of a follower, for the tests of feeds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from jobcast.feeds import JobSummary
from jobcast.realtime.connection.frames import FrameBatch

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FEED = "owner:alice"


def job(number: int = 0, seq: int = 1, **fields: Any) -> JobSummary:
    """The summary of a job of alice; a job with a higher number is newer."""
    values = {
        "job_id": f"job-{number}",
        "epoch": "a",
        "status": "started",
        "owner": "alice",
        "created_at": NOON + timedelta(minutes=number),
    }
    return JobSummary(**{**values, "seq": seq, **fields})


class Recorder:
    """An outlet that records what it is sent."""

    def __init__(self) -> None:
        self.sid = "sid"
        self.closed = False
        self.waiting = 0
        self.packets: list[str] = []

    def send(self, batch: FrameBatch) -> None:
        self.packets += [message.packet for message in batch.messages]

    def send_history(self, batch: FrameBatch) -> None:
        self.send(batch)

    async def drained(self) -> None:
        """Return at once."""

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [tuple(json.loads(packet[2:])) for packet in self.packets]

    def take(self) -> list[tuple[str, str]]:
        """Remove and return the name, and the job of each packet."""
        events = [(name, payload["job_id"]) for name, payload in self.events]
        self.packets.clear()
        return events
