"""Canaries: messages that a process publishes to itself, to verify that it receives events.

An open connection proves little: a subscription may be lost, an exchange deleted, a broker may stop
reading from publishers, or the client may publish to another server than it subscribes to. All of
these look like jobs without events. A canary tells the two apart. The process sends no canary while
other messages arrive by the same route.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from jobcast.aio import jittered
from jobcast.errors import TransportUnavailable

INTERVAL: Final = 1.0  # seconds of silence after which a canary is sent
UNANSWERED: Final = 5  # lost canaries, after which the route counts as broken
SILENCE: Final = 15.0  # seconds without an arriving canary, after which the process is not ready

logger = logging.getLogger(__name__)


class NotReceiving(Exception):
    """Published messages do not arrive by a route.

    ``route`` is the route's name. ``reaches_no_process`` is true if no other process receives
    messages by it either.
    """

    def __init__(self, route: str, *, reaches_no_process: bool) -> None:
        super().__init__(f"this process does not receive messages published to {route}")
        self.route = route
        self.reaches_no_process = reaches_no_process


class _Route(Struct):
    last_message_at: float
    waiting_since: float | None = None  # when the first lost canary was sent
    unanswered: int = 0  # canaries that were sent and did not arrive


class Canary:
    """Monitors the routes by which a process receives messages.

    Args:
        send: sends a canary by a route, and returns False if no process can receive it.
        is_online: returns whether the process is connected, so that canaries can arrive.
        clock: returns seconds.
    """

    def __init__(
        self,
        send: Callable[[str], Awaitable[bool]],
        is_online: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._is_online = is_online
        self._clock = clock
        self._since = clock()
        self._routes: dict[str, _Route] = {}
        self._broken_since: dict[str, float] = {}  # since when each broken route is silent
        self._active: set[str] = set()  # routes with a message since the last check
        self._error = ""  # why the last canary could not be sent
        self._has_warned = False

    def watch(self, names: Iterable[str]) -> None:
        """Monitor these routes from now on; their connection is new.

        A broken route stays so until a message arrives by it.
        """
        now = self._clock()
        self._routes = {name: _Route(now, self._broken_since.get(name)) for name in names}

    def message_arrived(self, name: str) -> None:
        """Record that a message has arrived by a route."""
        self._active.add(name)

    @property
    def age(self) -> float:
        """Return the seconds since a message arrived, for the route that is silent for longest."""
        self._update()
        last_message_at = (route.last_message_at for route in self._routes.values())
        return self._clock() - min(last_message_at, default=self._since)

    @property
    def silence(self) -> float:
        """Return the seconds since the oldest canary that has not arrived was sent.

        The time counts from the sending of a canary, so that a route whose process was too busy
        to read does not count as broken.
        """
        self._update()
        now = self._clock()
        waits = [
            now - route.waiting_since for route in self._routes.values() if route.waiting_since
        ]
        return max(waits, default=0.0)

    @property
    def problem(self) -> str:
        """Return why the process receives no messages, or an empty string if it does."""
        silence = self.silence
        if silence < SILENCE:
            return ""
        return f"no published message has arrived for {silence:.0f} s" + (
            f" ({self._error})" if self._error else ""
        )

    async def run(self) -> None:
        """Send canaries by silent routes, until cancelled.

        Raises:
            NotReceiving: the canaries do not arrive.
        """
        while True:
            # Random intervals: a canary that reaches all processes spares the others theirs.
            await asyncio.sleep(jittered(INTERVAL, 0.7, 1.3))
            if self._is_online():
                await self._send_where_silent()
            self._warn()

    async def _send_where_silent(self) -> None:
        self._update()
        for name, route in [*self._routes.items()]:
            if self._clock() - route.last_message_at < INTERVAL / 2:
                continue
            route.waiting_since = route.waiting_since or self._clock()
            try:
                is_routed = await self._send(name)
            except TransportUnavailable as exc:
                self._error = str(exc)
                continue
            self._error = ""
            route.unanswered += 1
            if not is_routed or route.unanswered > UNANSWERED:
                route.unanswered = 0
                self._broken_since[name] = route.waiting_since
                raise NotReceiving(name, reaches_no_process=not is_routed)

    def _update(self) -> None:
        fresh, self._active = self._active, set()
        now = self._clock()
        for name in fresh & self._routes.keys():
            self._routes[name] = _Route(now)
            self._broken_since.pop(name, None)

    def _warn(self) -> None:
        problem = self.problem
        if problem and not self._has_warned:
            logger.warning("%s: this process is not ready until one does", problem)
        elif self._has_warned and not problem:
            logger.warning("published messages arrive again: this process is ready")
        self._has_warned = bool(problem)


@runtime_checkable
class SupportsCanary(Protocol):
    """A source that verifies with a canary that it receives messages."""

    @property
    def canary(self) -> Canary:
        """Return the source's canary."""
