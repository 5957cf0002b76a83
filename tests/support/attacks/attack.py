"""One attack, its target, and what the attackers have seen."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tests.support.wire import Gone

RETRY_DELAY: Final = 0.05  # seconds between the end of a connection and the next one


@dataclass(frozen=True)
class Target:
    """The attacked server."""

    url: str
    token: str  # grants access to every job
    job_id: str  # a job with a long history
    source: str = ""  # the local address of the connection


@dataclass
class Seen:
    """Counts of what attackers have sent and received."""

    opened: int = 0
    closed: int = 0  # connections that the server refused or closed
    sent: int = 0  # bytes
    received: int = 0  # bytes
    codes: Counter[str] = field(default_factory=Counter)  # of answers to requests
    statuses: Counter[str] = field(default_factory=Counter)  # of HTTP

    def count_answers(self, packets: list[str]) -> None:
        """Count answers to requests, and refused connections."""
        for packet in packets:
            if packet.startswith("43"):
                with suppress(ValueError, LookupError, AttributeError):
                    [answer] = json.loads(packet.lstrip("0123456789"))
                    self.codes[answer.get("code", "ok")] += 1
            elif packet.startswith("44"):
                self.codes["connect_error"] += 1


Session = Callable[[Target, Seen], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """One way to harm a server.

    Attributes:
        row: the row of the table, such as H1.
        title: the description in the table.
        session: what one connection does.
        needs_token: whether the attacker authenticates.
    """

    name: str
    row: str
    title: str
    session: Session
    needs_token: bool = False

    async def once(self, target: Target, seen: Seen) -> None:
        """Attack on one connection until the server closes or refuses it."""
        seen.opened += 1
        with suppress(Gone):
            await self.session(target, seen)
        seen.closed += 1

    async def persist(self, target: Target, seen: Seen) -> None:
        """Reconnect whenever the server has closed the connection."""
        while True:
            await self.once(target, seen)
            await asyncio.sleep(RETRY_DELAY)
