"""Revoked tokens: an optional capability of transports.

A revocation is kept until its tokens have expired. It reaches every server process in two ways: at
once by a message, and by a periodic read of all revocations, which makes up for lost messages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

MAX_REVOCATIONS: Final = 100_000  # kept by transports without a store


class Revocation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens that are no longer accepted: one by its ``jti``, or a subject's by their age.

    Times are seconds since 1970.
    """

    jti: str | None = None
    sub: str | None = None
    before: float = 0.0  # revokes the tokens of ``sub`` that were issued until this time
    until: float  # when the tokens have expired and the revocation can be removed

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes | str) -> Revocation:
        """Parse the revocation in a message.

        Raises:
            ValueError: the message is not a revocation.
        """
        try:
            revocation = msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ValueError(f"not a revocation: {exc}") from None
        if (revocation.jti is None) == (revocation.sub is None):
            raise ValueError("not a revocation: it should have either jti or sub")
        return revocation


@runtime_checkable
class SupportsRevoking(Protocol):
    """A publisher that can revoke tokens. Optional."""

    def revoke(self, revocation: Revocation) -> None:
        """Store a revocation, and send it to every server process.

        Raises:
            PublishFailed: the revocation may not have been stored; revoking again does no harm.
        """


@runtime_checkable
class SupportsRevocations(Protocol):
    """A source that can read revocations. Optional."""

    def watch_revocations(self, on_revocation: Callable[[Revocation], None]) -> None:
        """Register a callback, which the source calls in its loop with each new revocation."""

    async def revocations(self) -> list[Revocation]:
        """Return all revocations that are in force.

        Raises:
            TransportUnavailable: the store cannot be read.
        """


class InMemoryRevocations:
    """Bounded revocations in memory; past the limit, the first to expire is dropped."""

    def __init__(
        self, clock: Callable[[], float] = time.time, limit: int = MAX_REVOCATIONS
    ) -> None:
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: dict[Revocation, None] = {}

    def add(self, revocation: Revocation) -> None:
        """Add a revocation. Past the limit, drop the one that expires first."""
        with self._lock:
            self._kept[revocation] = None
            if len(self._kept) > self._limit:
                del self._kept[min(self._kept, key=lambda kept: kept.until)]

    def in_force(self) -> list[Revocation]:
        """Return the revocations that have not expired, and remove the others."""
        with self._lock:
            self._kept = dict.fromkeys(still_in_force(self._kept, self._clock()))
            return list(self._kept)


def still_in_force(revocations: Iterable[Revocation], now: float) -> list[Revocation]:
    """Return the revocations that have not expired at ``now``, in seconds since 1970."""
    return [revocation for revocation in revocations if revocation.until > now]
