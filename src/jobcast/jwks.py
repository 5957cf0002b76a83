"""Public keys from the JWKS endpoint of an issuer. Needs PyJWT (``jobcast[server]``)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from jobcast.aio import LoopChange, jittered
from jobcast.errors import TokenError
from jobcast.jwks_fetch import fetch_signing_keys
from jobcast.keys import VerificationKey

FETCH_TIMEOUT: Final = 5.0  # seconds that a token waits for the endpoint
REFRESH_INTERVAL: Final = 150.0  # seconds between two background fetches
RETRY_DELAY: Final = 5.0  # seconds between a failed fetch and the next
GIVEN_UP: Final = 60.0  # seconds after which a fetch in flight is abandoned
COOLDOWN: Final = 30.0  # seconds after a fetch in which an unknown key id starts no other fetch

logger = logging.getLogger(__name__)


class RemoteKeys:
    """A key set that is fetched in the background and cached in memory.

    A token whose key is cached never waits for the endpoint. The cached keys stay in use while the
    endpoint fails or hangs. One fetch runs at a time, in its own thread, and all waiting tokens
    share it.

    Args:
        url: the URL of the JWKS.
        algorithms: the allowed JWT algorithms.
    """

    are_named: Final = True

    def __init__(self, url: str, algorithms: Sequence[str]) -> None:
        self._url = url
        self._algorithms = tuple(algorithms)
        self._keys: dict[str, VerificationKey] = {}
        self._change = LoopChange()
        self._fetching: asyncio.Future[None] | None = None
        self._deadline = 0.0  # of the fetch in flight, by the loop's clock
        self._cool_at = float("-inf")  # when unknown key ids may start a fetch, by time.monotonic
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.problem = ""  # why the latest fetch failed

    def start(self) -> None:
        """Fetch the keys and refresh them regularly, in the running loop."""
        self._closed = False
        self._enter_loop()
        if self._fetching is None and self._timer is None:
            self._fetch()

    def close(self) -> None:
        """Stop the background fetches. The cached keys stay usable."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def find(self, kid: str | None) -> Sequence[VerificationKey]:
        """Return the key with the key id ``kid``. Fetch the keys if it is not cached.

        Raises:
            TokenError: the token has no ``kid`` or no key has this id (``token_key``), or the keys
                cannot be fetched now (``unavailable``).
        """
        if kid is None:
            raise TokenError("token_key", "the token does not name its key: it has no kid")
        if kid not in self._keys:
            await self.refresh()
        if kid in self._keys:
            return [self._keys[kid]]
        if self.problem:
            raise TokenError("unavailable", "the keys cannot be fetched now")
        raise TokenError("token_key", "the token's key is not known")

    async def refresh(self) -> None:
        """Fetch the keys, or wait for the fetch in flight.

        Do nothing within ``COOLDOWN`` seconds of the last fetch (``RETRY_DELAY`` if it failed).
        """
        self._enter_loop()
        if self._fetching is None:
            if time.monotonic() < self._cool_at:
                return
            self._fetch()
        try:
            async with asyncio.timeout_at(self._deadline):
                # Shielded, because other tokens may wait for the same fetch.
                await asyncio.shield(self._in_flight())
        except TimeoutError:
            self._failed(f"no answer in {FETCH_TIMEOUT:.0f} s")

    def _enter_loop(self) -> None:
        """Discard the fetch and the timer of a previous event loop."""
        if self._change.happened():
            self._fetching = self._timer = None

    def _in_flight(self) -> asyncio.Future[None]:
        if self._fetching is None:
            raise RuntimeError("no fetch is in flight")
        return self._fetching

    def _fetch(self) -> None:
        loop = asyncio.get_running_loop()
        fetching = self._fetching = loop.create_future()
        self._deadline = loop.time() + FETCH_TIMEOUT
        # Socket timeouts do not bound a response that arrives one byte at a time.
        self._set_timer(GIVEN_UP, self._fetched, fetching, {}, f"no answer in {GIVEN_UP:.0f} s")
        # A daemon thread, so that an unresponsive endpoint does not delay the exit of the process.
        threading.Thread(
            target=self._run_fetch, args=(fetching,), name="jobcast-jwks", daemon=True
        ).start()

    def _run_fetch(self, fetching: asyncio.Future[None]) -> None:
        keys: dict[str, VerificationKey] = {}
        problem = ""
        try:
            for key in fetch_signing_keys(self._url, FETCH_TIMEOUT, GIVEN_UP):
                keys[str(key.key_id)] = VerificationKey(key.key_id, key, self._algorithms)
        except Exception as exc:
            # Any exception: without a call of _fetched the keys would never be fetched again.
            problem = str(exc) or repr(exc)
        try:
            fetching.get_loop().call_soon_threadsafe(self._fetched, fetching, keys, problem)
        except RuntimeError:
            logger.debug("discarded the keys of JOBCAST_JWKS_URL: the event loop is closed")

    def _fetched(
        self, fetching: asyncio.Future[None], keys: dict[str, VerificationKey], problem: str
    ) -> None:
        if fetching is not self._fetching:
            return  # this fetch was abandoned, or belongs to a previous event loop
        if problem:
            self._failed(problem)
        else:
            if self.problem:
                logger.info("fetched the keys of JOBCAST_JWKS_URL again: %d", len(keys))
            self._keys, self.problem = keys, ""
        self._cool_at = time.monotonic() + (RETRY_DELAY if problem else COOLDOWN)
        delay = RETRY_DELAY if problem else REFRESH_INTERVAL
        self._set_timer(jittered(delay, 0.8, 1.0), self._fetch)
        self._fetching = None
        fetching.set_result(None)

    def _set_timer(self, delay: float, then: Callable[..., None], *args: object) -> None:
        """Replace the timer, which starts the next fetch or abandons the fetch in flight."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(delay, then, *args)

    def _failed(self, problem: str) -> None:
        if not self.problem:
            logger.warning(
                "could not fetch the keys of JOBCAST_JWKS_URL (%s); trying again every %.0f s, with"
                " the %d keys fetched before in use until then",
                problem, RETRY_DELAY, len(self._keys),
            )  # fmt: skip
        self.problem = problem
