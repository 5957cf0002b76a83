"""Revoked tokens: an optional power of transports.

A revocation is kept until the tokens that it is about have expired, and reaches every server
process: at once by a message, and by reading all of them again and again, which makes up for
messages that were lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

MAX_REVOCATIONS: Final = 100_000  # that are kept where there is no store


class Revocation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens that are not accepted any more: one by its ``jti``, or a subject's by their age.

    Times are seconds since 1970.
    """

    jti: str | None = None
    sub: str | None = None
    before: float = 0.0  # tokens of ``sub`` that were issued until then
    until: float  # when the tokens have expired, so that the revocation may be forgotten

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes | str) -> Revocation:
        """Return the revocation of a message.

        Raises:
            ValueError: the message is something else.
        """
        try:
            revocation = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ValueError(f"no revocation: {exc}") from None
        if (revocation.jti is None) == (revocation.sub is None):
            raise ValueError("no revocation: it should have either jti or sub")
        return revocation


@runtime_checkable
class SupportsRevoking(Protocol):
    """A publisher that can revoke tokens. Optional."""

    def revoke(self, revocation: Revocation) -> None:
        """Store a revocation, and send it to every server process.

        Raises:
            PublishFailed: it may not have been stored; revoking again does no harm.
        """


@runtime_checkable
class SupportsRevocations(Protocol):
    """A source that can read revocations. Optional."""

    def watch_revocations(self, on_revocation: Callable[[Revocation], None]) -> None:
        """Have a function called in the source's loop with each revocation as it comes."""

    async def revocations(self) -> list[Revocation]:
        """Return all revocations that are in force.

        Raises:
            TransportUnavailable: the store cannot be read.
        """


class RevocationBook:
    """Revocations in memory, bounded: the one that ends first goes first."""

    def __init__(
        self, clock: Callable[[], float] = time.time, limit: int = MAX_REVOCATIONS
    ) -> None:
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: dict[Revocation, None] = {}

    def add(self, revocation: Revocation) -> None:
        """Keep a revocation. Past the limit, drop the one that expires first."""
        with self._lock:
            self._kept[revocation] = None
            if len(self._kept) > self._limit:
                del self._kept[min(self._kept, key=lambda kept: kept.until)]

    def in_force(self) -> list[Revocation]:
        """Return the revocations that have not expired, and forget the others."""
        with self._lock:
            self._kept = dict.fromkeys(still_in_force(self._kept, self._clock()))
            return list(self._kept)


def still_in_force(revocations: Iterable[Revocation], now: float) -> list[Revocation]:
    """Return the revocations that have not expired at ``now``, in seconds since 1970."""
    return [revocation for revocation in revocations if revocation.until > now]
