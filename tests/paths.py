"""The Socket.IO application with configurable pings and a page that counts write paths."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jobcast.realtime import create_app as create_plain_app
from jobcast.realtime.connection.outbox import Outbox
from jobcast.realtime.connection.websocket import WebSocket


async def paths(request: Request) -> JSONResponse:
    """Count the connections, and the WebSockets per write path."""
    counts = {"connections": 0, "direct": 0, "ordinary": 0}
    for socket in request.app.state.sio.eio.sockets.values():
        counts["connections"] += not socket.closed
        if isinstance(socket.queue, Outbox) and isinstance(socket.queue.sink, WebSocket):
            counts["direct" if socket.queue.sink._protocol is not None else "ordinary"] += 1
    return JSONResponse(counts)


def create_app() -> Starlette:
    app = create_plain_app(routes=[Route("/paths", paths)])
    # jobcast reads the interval for the first connection, python-engineio the timeout at each use.
    for name in ("ping_interval", "ping_timeout"):
        if f"TEST_{name.upper()}" in os.environ:
            setattr(app.state.sio.eio, name, float(os.environ[f"TEST_{name.upper()}"]))
    return app
