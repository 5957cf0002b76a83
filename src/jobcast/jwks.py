"""Public keys of an issuer, fetched from its JWKS endpoint. Needs PyJWT (``jobcast[server]``)."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from jobcast.errors import TokenError
from jobcast.jwks_fetch import fetch_signing_keys
from jobcast.keys import VerificationKey
from jobcast.loops import LoopChange

FETCH_TIMEOUT: Final = 5.0  # seconds of waiting for the endpoint
REFRESH_INTERVAL: Final = 150.0  # seconds between two fetches in the background
RETRY_DELAY: Final = 5.0  # seconds after a fetch that failed
GIVEN_UP: Final = 60.0  # seconds after which a fetch is not waited for any more
COOLDOWN: Final = 30.0  # seconds after a fetch in which an unknown key id causes no other

logger = logging.getLogger(__name__)


class RemoteKeys:
    """Keys that are fetched in the background and used from memory.

    A token whose key is in memory never waits for the endpoint. The keys stay in use while the
    endpoint fails or hangs. One fetch runs at a time, in a thread of its own, for all who wait.

    Args:
        url: of the JWKS.
        algorithms: that are allowed.
    """

    def __init__(self, url: str, algorithms: Sequence[str]) -> None:
        self._url = url
        self._algorithms = tuple(algorithms)
        self._keys: dict[str, VerificationKey] = {}
        self._change = LoopChange()
        self._fetching: asyncio.Future[None] | None = None
        self._deadline = 0.0  # of the fetch in flight, by the loop's clock
        self._cool_at = float("-inf")  # when an unknown key id may cause a fetch, by time.monotonic
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.problem = ""  # why the latest fetch failed

    def start(self) -> None:
        """Fetch the keys, and keep them fresh, in the running loop."""
        self._closed = False
        self._enter_loop()
        if self._fetching is None and self._timer is None:
            self._fetch()

    def close(self) -> None:
        """Stop fetching. The keys can still be used."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def find(self, kid: str | None) -> Sequence[VerificationKey]:
        """Return the key of a token, which has to name it by its ``kid``.

        Raises:
            TokenError: there is no such key (``token_key``), or the keys cannot be fetched now
                (``unavailable``).
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
        """Fetch the keys, or wait for the fetch in flight. Do nothing soon after a fetch."""
        self._enter_loop()
        if self._fetching is None:
            if time.monotonic() < self._cool_at:
                return
            self._fetch()
        try:
            async with asyncio.timeout_at(self._deadline):
                # Shielded: others wait for the same fetch.
                await asyncio.shield(self._in_flight())
        except TimeoutError:
            self._failed(f"no answer in {FETCH_TIMEOUT:.0f} s")

    def _enter_loop(self) -> None:
        """Forget the fetch and the timer of another loop than the running one."""
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
        # An endpoint that sends a byte now and then meets every timeout of a socket.
        self._set_timer(GIVEN_UP, self._fetched, fetching, {}, f"no answer in {GIVEN_UP:.0f} s")
        # A daemon: an endpoint that hangs does not keep the process from ending.
        threading.Thread(
            target=self._ask, args=(fetching,), name="jobcast-jwks", daemon=True
        ).start()

    def _ask(self, fetching: asyncio.Future[None]) -> None:
        keys: dict[str, VerificationKey] = {}
        problem = ""
        try:
            for key in fetch_signing_keys(self._url, FETCH_TIMEOUT, GIVEN_UP):
                keys[str(key.key_id)] = VerificationKey(key.key_id, key, self._algorithms)
        except Exception as exc:
            # Whatever it is: without an answer the keys would never be fetched again.
            problem = str(exc) or repr(exc)
        try:
            fetching.get_loop().call_soon_threadsafe(self._fetched, fetching, keys, problem)
        except RuntimeError:
            logger.debug("the keys came after the event loop was closed")

    def _fetched(
        self, fetching: asyncio.Future[None], keys: dict[str, VerificationKey], problem: str
    ) -> None:
        if fetching is not self._fetching:
            return  # it was given up, or another loop asks by now
        if problem:
            self._failed(problem)
        else:
            if self.problem:
                logger.info("fetched the keys of JOBCAST_JWKS_URL again: %d", len(keys))
            self._keys, self.problem = keys, ""
        self._cool_at = time.monotonic() + (RETRY_DELAY if problem else COOLDOWN)
        delay = RETRY_DELAY if problem else REFRESH_INTERVAL
        # Processes that were started together do not ask together.
        self._set_timer(delay * random.uniform(0.8, 1.0), self._fetch)
        self._fetching = None
        fetching.set_result(None)

    def _set_timer(self, delay: float, then: Callable[..., None], *args: object) -> None:
        """Set the one timer that there is: for the next fetch, or the end of the present one."""
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
