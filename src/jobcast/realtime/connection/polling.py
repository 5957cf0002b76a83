"""What a client sends in long-polling: requests with several packets each.

This is an adapter: it takes the place of ``handle_post_request`` of python-engineio, which decodes
16 packets at most, and leaves a connection open whatever it sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from engineio.exceptions import EngineIOError
from engineio.packet import Packet

from jobcast.realtime.connection.budget import Budget, BudgetExceeded
from jobcast.realtime.connection.packets import BadPacket
from jobcast.realtime.connection.refusals import RefusalLog, shown
from jobcast.settings import Settings

SPARE_PACKETS: Final = 16  # of one request, beyond one for each job that a client may follow
SEPARATOR: Final = "\x1e"  # between the packets of a request


class PollingReader:
    """Reads the packets of clients in long-polling, one request of each at a time.

    Args:
        eio: the Engine.IO server.
        settings: how many jobs one connection may follow, which it may join in one request, and for
            how long it may leave unread what it asked for.
        budget_of: the budget of a connection.
        refusals: where a closed connection is logged.
    """

    def __init__(
        self,
        eio: Any,
        settings: Settings,
        budget_of: Callable[[str], Budget],
        refusals: RefusalLog,
    ) -> None:
        self._eio = eio
        self._max_packets = settings.max_jobs + SPARE_PACKETS
        self._send_timeout = settings.send_timeout
        self._budget_of = budget_of
        self._refusals = refusals
        self._reading: set[str] = set()

    async def read(self, socket: Any, environ: dict[str, Any]) -> None:
        """Take what a request brings, and close the connection if that is malformed.

        Raises:
            EngineIOError: python-engineio answers the request with an error.
        """
        sid = socket.sid
        try:
            if sid in self._reading:
                raise BadPacket("a request came before the last one was answered")
            self._reading.add(sid)
            try:
                await self._take(socket, await environ["wsgi.input"].read())
            finally:
                self._reading.discard(sid)
        except (
            EngineIOError, ValueError, LookupError, TypeError, RecursionError, BudgetExceeded,
        ) as exc:  # fmt: skip
            if isinstance(exc, BudgetExceeded):
                self._refusals.info("closed %s: %s", sid, exc)
            else:
                self._refusals.info("closed %s: it sent no Engine.IO packet (%s)", sid, shown(exc))
            # python-engineio answers the request, and would wait for the client to read the end.
            await socket.close(wait=False, reason=self._eio.reason.SERVER_DISCONNECT)
            self._eio.sockets.setdefault(sid, socket)  # without it the request has no answer
            raise EngineIOError("it cannot be read") from None

    async def _take(self, socket: Any, body: bytes) -> None:
        encoded = body.decode().split(SEPARATOR)
        if len(encoded) > self._max_packets:
            raise BadPacket(f"a request may have {self._max_packets} packets")
        budget = self._budget_of(socket.sid)
        await budget.admit(len(encoded))
        for text in encoded:
            if socket.closed:
                return
            await socket.receive(Packet(encoded_packet=text))
            await self._room(budget)

    async def _room(self, budget: Budget) -> None:
        """Wait until another request of the session may come.

        Raises:
            BudgetExceeded: the client does not poll, so that none of them is answered.
        """
        if budget.has_room:
            return
        try:
            async with asyncio.timeout(self._send_timeout):
                await budget.room()
        except TimeoutError:
            raise BudgetExceeded("it does not poll (JOBCAST_SEND_TIMEOUT)") from None
