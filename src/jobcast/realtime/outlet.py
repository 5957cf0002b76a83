"""The interface of a follower's connection to its rooms."""

from __future__ import annotations

from typing import Protocol

from jobcast.realtime.connection.frames import FrameBatch


class Outlet(Protocol):
    """The destination of a follower's packets.

    Sending never waits, so that no follower delays another.
    """

    sid: str

    @property
    def closed(self) -> bool:
        """Whether the outlet can no longer send."""

    @property
    def waiting(self) -> int:
        """The number of characters that wait until the client reads."""

    def send(self, batch: FrameBatch) -> None:
        """Send packets of live events."""

    def send_history(self, batch: FrameBatch) -> None:
        """Send a job's history, which may exceed the limit for live events."""

    async def drained(self) -> None:
        """Wait until the outlet accepts another history."""
