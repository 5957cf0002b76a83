"""Tokens that a server process refuses because they were revoked."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from jobcast.errors import TokenError, TransportUnavailable
from jobcast.tokens import Subject
from jobcast.transports.revocations import Revocation, SupportsRevocations

RELOAD_INTERVAL: Final = 30.0  # seconds between two reads of all revocations
RETRY_DELAY: Final = 1.0  # seconds after a read that failed
REQUEST_SPREAD: Final = 1.0  # seconds, at most, until a requested read begins
KNOWN_TIMEOUT: Final = 5.0  # seconds that a join waits for the first read

logger = logging.getLogger(__name__)


class DenyList:
    """The revocations that are in force, as far as this process knows.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tokens: dict[str, float] = {}  # jti: until when
        self._subjects: dict[str, tuple[float, float]] = {}  # sub: issued until, until when

    def add(self, revocations: Iterable[Revocation]) -> bool:
        """Add revocations. Returns whether one of them is news."""
        is_news = False
        for revocation in revocations:
            if revocation.jti is not None:
                is_news |= revocation.jti not in self._tokens
                until = max(revocation.until, self._tokens.get(revocation.jti, 0.0))
                self._tokens[revocation.jti] = until
            elif revocation.sub is not None:
                before, until = self._subjects.get(revocation.sub, (float("-inf"), 0.0))
                is_news |= revocation.before > before
                self._subjects[revocation.sub] = (
                    max(revocation.before, before),
                    max(revocation.until, until),
                )
        return is_news

    def forget_expired(self) -> None:
        """Forget revocations whose tokens have expired."""
        now = self._clock()
        self._tokens = {jti: until for jti, until in self._tokens.items() if until > now}
        self._subjects = {sub: kept for sub, kept in self._subjects.items() if kept[1] > now}

    def denies(self, subject: Subject) -> bool:
        """Return whether a token was revoked. One without ``iat`` counts as an old one."""
        if subject.token_id is not None and subject.token_id in self._tokens:
            return True
        before, _ = self._subjects.get(subject.sub, (float("-inf"), 0.0))
        return (subject.issued_at or 0.0) <= before

    def check(self, subject: Subject) -> None:
        """Raise TokenError if a token was revoked."""
        if self.denies(subject):
            raise TokenError("token_revoked", "the token was revoked")


class RevocationWatch:
    """Keeps a deny list up to date. The last known one stays in force while the store is away.

    Args:
        source: where revocations come from.
        deny_list: where they go to.
        on_news: is called when there is another one.
    """

    def __init__(
        self, source: SupportsRevocations, deny_list: DenyList, on_news: Callable[[], None]
    ) -> None:
        self._source = source
        self._deny_list = deny_list
        self._on_news = on_news
        self._known = asyncio.Event()  # all revocations were read once
        self._requested = asyncio.Event()
        source.watch_revocations(lambda revocation: self._add([revocation]))

    async def known(self) -> None:
        """Wait until this process, which may have started just now, has read what is revoked.

        Raises:
            TransportUnavailable: it cannot be read now.
        """
        try:
            async with asyncio.timeout(KNOWN_TIMEOUT):
                await self._known.wait()
        except TimeoutError:
            raise TransportUnavailable("the revoked tokens were not read yet") from None

    def request_read(self) -> None:
        """Have all revocations read soon: messages about them may have been lost."""
        self._requested.set()

    async def run(self) -> None:
        """Read all revocations again and again, until it is cancelled: a message may be lost."""
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
                    "could not read the revoked tokens (%s); those known stay in force, and it is"
                    " tried again every %.0f s%s", exc, RETRY_DELAY,
                    "" if self._known.is_set() else ". Until then no job can be joined",
                )  # fmt: skip
                problem = str(exc)
            except Exception:
                # Whatever it is, revocations have to reach this process later.
                logger.exception("reading the revoked tokens failed, and is tried again")
                problem = "failed"
            self._deny_list.forget_expired()
            # Processes that were started together do not read together.
            await self._pause(
                RETRY_DELAY if problem else RELOAD_INTERVAL * random.uniform(0.7, 1.0)
            )

    async def _pause(self, seconds: float) -> None:
        """Wait until the next read is due or, if that is sooner, a requested one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._requested.wait()
                # Processes that lost the same server do not read together.
                await asyncio.sleep(random.uniform(0, REQUEST_SPREAD))

    def _add(self, revocations: Iterable[Revocation]) -> None:
        if self._deny_list.add(revocations):
            self._on_news()
