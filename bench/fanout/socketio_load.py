"""A cheap Socket.IO client of the load generator."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.fanout.follower import Follower

MARK: Final = b'"line '
HANDSHAKE_TIMEOUT: Final = 120.0  # seconds


class SocketIOClient(WSListener):
    """One connection. The message of an event has its number and the time of its publication."""

    def __init__(
        self, follower: Follower, token: str, job: str | None, count_ping: Callable[[], None]
    ) -> None:
        super().__init__()
        self.follower = follower
        self._token = token
        self._job = job
        self._count_ping = count_ping
        self._transport: WSTransport | None = None

    def disconnect(self) -> None:
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_disconnected(self, _: WSTransport) -> None:
        self.follower.set_failed(ConnectionError("closed before it was ready"))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        at = payload.find(MARK)
        if at >= 0:
            number = int(payload[at + 6 : at + 13])
            self.follower.handle_event(number, int(payload[at + 17 : payload.index(b'"', at + 17)]))
        elif frame.msg_type == WSMsgType.TEXT:
            self._handle_control(transport, payload)

    def _handle_control(self, transport: WSTransport, payload: bytes) -> None:
        if payload.startswith(b"0{"):
            transport.send(WSMsgType.TEXT, b"40" + json.dumps({"token": self._token}).encode())
        elif payload.startswith(b"40{"):
            if self._job is None:
                self.follower.set_ready()
            else:
                request = json.dumps(["join_job", {"job_id": self._job}])
                transport.send(WSMsgType.TEXT, b"420" + request.encode())
        elif payload.startswith(b"430"):
            if b'"ok":true' not in payload:
                raise RuntimeError(payload)
            self.follower.set_ready()
        elif payload == b"2":
            transport.send(WSMsgType.TEXT, b"3")
            self._count_ping()
        elif payload.startswith(b"44"):
            raise RuntimeError(payload)


async def open_socket(
    follower: Follower, port: int, token: str, job: str | None, count_ping: Callable[[], None]
) -> SocketIOClient:
    """Open a WebSocket, which then authenticates and joins the job."""
    client = SocketIOClient(follower, token, job, count_ping)
    url = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
    await ws_connect(lambda: client, url, websocket_handshake_timeout=HANDSHAKE_TIMEOUT)
    return client
