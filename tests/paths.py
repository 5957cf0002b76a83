"""The Socket.IO process with pings that come soon, and with a page that says how it writes."""

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
    """How many connections there are, and how many WebSockets are written to in which way."""
    counts = {"connections": 0, "direct": 0, "ordinary": 0}
    for socket in request.app.state.sio.eio.sockets.values():
        counts["connections"] += not socket.closed
        if isinstance(socket.queue, Outbox) and isinstance(socket.queue.sink, WebSocket):
            counts["direct" if socket.queue.sink._protocol is not None else "ordinary"] += 1
    return JSONResponse(counts)


def create_app() -> Starlette:
    app = create_plain_app(routes=[Route("/paths", paths)])
    # python-engineio looks at these whenever it needs them.
    for name in ("ping_interval", "ping_timeout"):
        if f"TEST_{name.upper()}" in os.environ:
            setattr(app.state.sio.eio, name, float(os.environ[f"TEST_{name.upper()}"]))
    return app
