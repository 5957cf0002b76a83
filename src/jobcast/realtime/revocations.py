"""Revoked tokens, which a server process refuses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from jobcast.aio import jittered
from jobcast.errors import TokenError, TransportUnavailable
from jobcast.tokens import Subject
from jobcast.transports.revocations import Revocation, SupportsRevocations

RELOAD_INTERVAL: Final = 30.0  # seconds between reads of all revocations
RETRY_DELAY: Final = 1.0  # seconds to wait after a failed read
REQUEST_SPREAD: Final = 1.0  # maximum delay of a requested read, in seconds
KNOWN_TIMEOUT: Final = 5.0  # seconds that a join waits for the first read

logger = logging.getLogger(__name__)


class DenyList:
    """The revocations in force that this process knows.

    Args:
        clock: returns the current time in seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tokens: dict[str, float] = {}  # jti: when the revocation expires
        self._subjects: dict[str, tuple[float, float]] = {}  # sub: (issued until, expires)

    def add(self, revocations: Iterable[Revocation]) -> bool:
        """Add revocations. Return whether at least one of them is new."""
        has_new = False
        for revocation in revocations:
            if revocation.jti is not None:
                has_new |= revocation.jti not in self._tokens
                until = max(revocation.until, self._tokens.get(revocation.jti, 0.0))
                self._tokens[revocation.jti] = until
            elif revocation.sub is not None:
                before, until = self._subjects.get(revocation.sub, (float("-inf"), 0.0))
                has_new |= revocation.before > before
                self._subjects[revocation.sub] = (
                    max(revocation.before, before),
                    max(revocation.until, until),
                )
        return has_new

    def forget_expired(self) -> None:
        """Remove revocations whose tokens have expired."""
        now = self._clock()
        self._tokens = {jti: until for jti, until in self._tokens.items() if until > now}
        self._subjects = {sub: kept for sub, kept in self._subjects.items() if kept[1] > now}

    def denies(self, subject: Subject) -> bool:
        """Return whether a token was revoked.

        A token without ``iat`` counts as issued before every revocation of its subject.
        """
        if self._tokens and subject.token_id in self._tokens:
            return True
        revoked = self._subjects.get(subject.sub)
        return revoked is not None and (subject.issued_at or 0.0) <= revoked[0]

    def check(self, subject: Subject) -> None:
        """Check that a token was not revoked.

        Raises:
            TokenError: the token was revoked.
        """
        if self.denies(subject):
            raise TokenError("token_revoked", "the token was revoked")


class RevocationWatch:
    """A task that keeps a deny list up to date.

    While the store is unavailable, the known revocations stay in force.

    Args:
        source: the source of revocations.
        deny_list: the deny list to update.
        on_added: called after new revocations were added.
    """

    def __init__(
        self, source: SupportsRevocations, deny_list: DenyList, on_added: Callable[[], None]
    ) -> None:
        self._source = source
        self._deny_list = deny_list
        self._on_added = on_added
        self._known = asyncio.Event()  # set after the first read of all revocations
        self._requested = asyncio.Event()
        source.watch_revocations(lambda revocation: self._add([revocation]))

    async def known(self) -> None:
        """Wait until this process has read all revocations once.

        Raises:
            TransportUnavailable: the first read took too long.
        """
        if self._known.is_set():
            return
        try:
            async with asyncio.timeout(KNOWN_TIMEOUT):
                await self._known.wait()
        except TimeoutError:
            raise TransportUnavailable("the revoked tokens have not been read yet") from None

    def request_read(self) -> None:
        """Request a read of all revocations, because messages may have been lost."""
        self._requested.set()

    async def run(self) -> None:
        """Read all revocations periodically until cancelled, because a message may be lost."""
        problem = ""
        while True:
            self._requested.clear()
            try:
                self._add(await self._source.revocations())
                self._known.set()
                problem = ""
            except TransportUnavailable as exc:
                logger.log(
                    logging.DEBUG if problem else logging.WARNING,
                    "could not read the revoked tokens (%s); the known revocations stay in force;"
                    " retrying every %.0f s%s", exc, RETRY_DELAY,
                    "" if self._known.is_set() else "; until then clients cannot join any job",
                )  # fmt: skip
                problem = str(exc)
            except Exception:
                # An unexpected error must not end the task: later revocations have to arrive.
                logger.exception(
                    "could not read the revoked tokens; retrying every %.0f s", RETRY_DELAY
                )
                problem = "failed"
            self._deny_list.forget_expired()
            await self._pause(RETRY_DELAY if problem else jittered(RELOAD_INTERVAL, 0.7, 1.0))

    async def _pause(self, seconds: float) -> None:
        """Wait until the next periodic or requested read is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._requested.wait()
                await asyncio.sleep(jittered(REQUEST_SPREAD, 0.0, 1.0))

    def _add(self, revocations: Iterable[Revocation]) -> None:
        if self._deny_list.add(revocations):
            self._on_added()
