"""The Socket.IO application with routes that emit to clients of any process."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobcast.realtime import create_app as create_plain_app


async def say(request: Request) -> Response:
    note = {"text": request.query_params["text"]}
    await request.app.state.sio.emit("note", note, to=request.query_params["to"])
    return Response(status_code=204)


async def disconnect(request: Request) -> Response:
    await request.app.state.sio.disconnect(request.query_params["sid"])
    return Response(status_code=204)


def create_app() -> Starlette:
    routes = [
        Route("/say", say, methods=["POST"]),
        Route("/disconnect", disconnect, methods=["POST"]),
    ]
    return create_plain_app(routes=routes)
