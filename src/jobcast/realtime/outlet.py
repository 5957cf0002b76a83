"""What a room asks of a follower's connection."""

from __future__ import annotations

from typing import Protocol

from jobcast.realtime.connection.frames import FrameBatch


class Outlet(Protocol):
    """Where a follower's packets go. Sending never waits, so that no follower delays another."""

    sid: str

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    def send(self, batch: FrameBatch) -> None:
        """Send packets of live events."""

    def send_history(self, batch: FrameBatch) -> None:
        """Send what a history has, which may be more than is allowed to wait otherwise."""

    async def drained(self) -> None:
        """Wait until a history may be sent."""
