"""A follower that records its packets."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from jobcast.realtime.connection.frames import FrameBatch


class Recorder:
    """Records the packets that the relay sends to a follower."""

    def __init__(self, sid: str = "recorder") -> None:
        self.sid = sid
        self.closed = False
        self.events: list[tuple[str, dict[str, Any]]] = []

    def send(self, batch: FrameBatch) -> None:
        for text in batch.texts:
            name, payload = msgspec.json.decode(text[2:])
            self.events.append((name, payload))

    def send_history(self, batch: FrameBatch) -> None:
        self.send(batch)

    async def drained(self) -> None:
        await asyncio.sleep(0)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    @property
    def seqs(self) -> list[int]:
        return [
            payload["seq"] for name, payload in self.events if name not in ("joined", "job_gap")
        ]

    @property
    def gaps(self) -> list[tuple[int, int]]:
        return [
            (payload["after"], payload["before"])
            for name, payload in self.events
            if name == "job_gap"
        ]

    @property
    def lines(self) -> list[object]:
        return [payload["message"] for name, payload in self.events if name == "job_log"]
