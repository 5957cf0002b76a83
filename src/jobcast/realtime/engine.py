"""Engine.IO connections: each has to authenticate soon, and to speak Socket.IO."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine
from typing import Any, Final

import socketio
from socketio.packet import Packet

AUTHENTICATION_TIMEOUT: Final = 5.0  # seconds from opening a connection to having authenticated

# Packets that a client may send: connect, disconnect, event and acknowledgement, plain and binary.
_PACKET_TYPES: Final = frozenset("012356")
# An event has a name, which is a string; python-socketio looks it up before anyone checks that.
_EVENT: Final = re.compile(r"[25](?:\d+-)?(?:/[^,]*,)?\d*\[\s*\"")

logger = logging.getLogger(__name__)


class EngineGuard:
    """Stands between Engine.IO and a Socket.IO server, and closes what python-socketio would keep.

    That is a connection that opens and then says nothing for ever, and one that sends what is no
    packet, for each of which python-socketio would log a traceback at anybody's will.
    """

    def __init__(self, sio: socketio.AsyncServer) -> None:
        self._sio = sio
        self._eio = sio.eio
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connect = self._eio.handlers["connect"]
        self._message = self._eio.handlers["message"]
        self._disconnect = self._eio.handlers["disconnect"]
        self._eio.on("connect", self._opened)
        self._eio.on("message", self._received)
        self._eio.on("disconnect", self._closed)

    @property
    def waiting(self) -> int:
        """How many connections were opened less than ``AUTHENTICATION_TIMEOUT`` ago."""
        return len(self._timers)

    async def aclose(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _opened(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        self._timers[eio_sid] = loop.call_later(AUTHENTICATION_TIMEOUT, self._check, eio_sid)
        return await self._connect(eio_sid, environ)

    async def _received(self, eio_sid: str, data: Any) -> None:
        problem: Exception | None = None
        try:
            is_event = isinstance(data, str) and data[:1] in ("2", "5")
            if not is_event or _EVENT.match(data):
                await self._message(eio_sid, data)
                return
        except Exception as exc:
            if _is_packet(data):
                raise
            problem = exc
        logger.info("closed %s: it sent no Socket.IO packet (%r)", eio_sid, problem)
        await self._eio.disconnect(eio_sid)

    async def _closed(self, eio_sid: str, reason: str) -> None:
        timer = self._timers.pop(eio_sid, None)
        if timer is not None:
            timer.cancel()
        await self._disconnect(eio_sid, reason)

    def _check(self, eio_sid: str) -> None:
        del self._timers[eio_sid]
        manager = self._sio.manager
        for namespace in list(manager.get_namespaces()):
            sid = manager.sid_from_eio_sid(eio_sid, namespace)
            if sid is not None and manager.is_connected(sid, namespace):
                return
        logger.info("closed %s: it did not authenticate in time", eio_sid)
        self._spawn(self._eio.disconnect(eio_sid))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_packet(data: Any) -> bool:
    """Whether python-socketio can read a message, so that something else went wrong."""
    try:
        Packet(encoded_packet=data)
    except Exception:
        # Its parser fails in as many ways as there are wrong packets.
        return False
    return not isinstance(data, str) or data[:1] in _PACKET_TYPES
