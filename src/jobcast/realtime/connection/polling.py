"""Reader of long-polling POST requests, which contain several packets each.

This module is an adapter. It replaces python-engineio's ``handle_post_request``, which decodes at
most 16 packets and never closes a connection that sends malformed ones.
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

SPARE_PACKETS: Final = 16  # packets per request beyond one per job that a client may follow
SEPARATOR: Final = "\x1e"  # between the packets of a request


class PollingReader:
    """Reader of the packets of long-polling clients, one request at a time per session.

    Args:
        eio: the Engine.IO server.
        settings: ``JOBCAST_MAX_JOBS``, as a client may join all of its jobs in one request, and
            ``JOBCAST_SEND_TIMEOUT``.
        budget_of: returns the budget of a session.
        refusals: the log of closed connections.
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
        """Handle the packets of a request. Close the connection if they are malformed.

        Raises:
            EngineIOError: the request is malformed; python-engineio answers it with an error.
        """
        sid = socket.sid
        try:
            if sid in self._reading:
                raise BadPacket("the previous request has not been answered yet")
            self._reading.add(sid)
            try:
                await self._handle_packets(socket, await environ["wsgi.input"].read())
            finally:
                self._reading.discard(sid)
        except (
            EngineIOError, ValueError, LookupError, TypeError, RecursionError, BudgetExceeded,
        ) as exc:  # fmt: skip
            if isinstance(exc, BudgetExceeded):
                self._refusals.info("closed %s: %s", sid, exc)
            else:
                self._refusals.info(
                    "closed %s: the client sent an invalid Engine.IO packet (%s)", sid, shown(exc)
                )
            # With wait=True the close would wait for the client to poll before the answer is sent.
            await socket.close(wait=False, reason=self._eio.reason.SERVER_DISCONNECT)
            self._eio.sockets.setdefault(sid, socket)  # python-engineio needs it for the answer
            raise EngineIOError("the request is malformed") from None

    async def _handle_packets(self, socket: Any, body: bytes) -> None:
        encoded = body.decode().split(SEPARATOR)
        if len(encoded) > self._max_packets:
            raise BadPacket(f"a request may have at most {self._max_packets} packets")
        budget = self._budget_of(socket.sid)
        await budget.admit(len(encoded))
        for text in encoded:
            if socket.closed:
                return
            await socket.receive(Packet(encoded_packet=text))
            await self._wait_for_capacity(budget)

    async def _wait_for_capacity(self, budget: Budget) -> None:
        """Wait until the session may make another request.

        Raises:
            BudgetExceeded: the client does not poll, so the pending requests cannot be answered.
        """
        if budget.has_capacity:
            return
        try:
            async with asyncio.timeout(self._send_timeout):
                await budget.wait_for_capacity()
        except TimeoutError:
            raise BudgetExceeded("the client does not poll (JOBCAST_SEND_TIMEOUT)") from None
