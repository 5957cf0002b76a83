"""The Socket.IO process as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import socketio
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from jobcast.log_safety import EXPOSED_LOGGERS, protect
from jobcast.realtime import metrics
from jobcast.realtime.connection import wire_json
from jobcast.realtime.connection.origins import OriginGuard, Origins
from jobcast.realtime.connection.screening import Refused, refuse
from jobcast.realtime.gateway import Gateway
from jobcast.realtime.health import health_routes, metrics_route
from jobcast.server.gc_tuning import relaxed_gc
from jobcast.server.graceful_shutdown import draining_on_sigterm
from jobcast.settings import Settings
from jobcast.transports import ClientManager, open_manager

PATH: Final = "/socket.io"
MAX_MESSAGE: Final = 64 * 1024  # bytes that a client may send at once


def client_manager(settings: Settings | None = None) -> ClientManager:
    """The client manager for a Socket.IO server that jobcast is attached to.

    >>> sio = socketio.AsyncServer(client_manager=client_manager(), async_mode="asgi")
    >>> attach(sio)
    """
    settings = settings or Settings.load()
    return open_manager(settings.url, settings.retention, prefix=settings.prefix)


def attach(
    sio: socketio.AsyncServer, settings: Settings | None = None, *, namespace: str = "/"
) -> Gateway:
    """Serve jobs on a Socket.IO server that an application already runs.

    Every connection to the namespace has to authenticate from now on. Handlers that the
    application registered before are kept: ``connect`` is asked after jobcast has accepted a
    connection. Call ``await gateway.aclose()`` when the application shuts down.

    It serves one event loop at a time: the first connection in another one begins anew there, as
    in tests that have a loop each.

    Args:
        sio: the server; with :func:`client_manager` as its client manager one connection to the
            transport is enough for both.
        settings: read from the environment by default.
        namespace: where clients connect to.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    return _gateway(sio, settings or Settings.load(), namespace=namespace)


def _gateway(sio: socketio.AsyncServer, settings: Settings, **options: Any) -> Gateway:
    source = getattr(sio.manager, "source", None) or client_manager(settings).source
    return Gateway(sio, source, settings, **options)


class _Application(Starlette):
    """Hands WebSockets of Socket.IO over before the layers that each of them would keep in memory.

    None of those does anything for a WebSocket: they are there for what routes raise.
    """

    def __init__(self, engine: ASGIApp, path: str, **options: Any) -> None:
        super().__init__(**options)
        self._engine = engine
        self._path = path
        self.router.default = _not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and scope["path"].startswith(f"{self._path}/"):
            await self._engine(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a WebSocket too, so that its client can tell a wrong path from a refusal."""
    await refuse(
        scope, receive, send, Refused(HTTPStatus.NOT_FOUND, "there is nothing at this path")
    )


def create_app(settings: Settings | None = None, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The Socket.IO process: ``/socket.io/``, ``/healthz``, ``/readyz``, and your own routes.

    With ``JOBCAST_METRICS`` there is ``/metrics`` too, and with ``JOBCAST_PATH_PREFIX`` everything
    is below that path. When SIGTERM comes the clients are sent to other processes before the server
    closes.

    Args:
        settings: read from the environment by default.
        routes: further routes, such as a login and a page.

    Raises:
        SettingsError: a setting is missing or wrong.

    >>> app = create_app(Settings(url="memory://", jwt_secret="x" * 32))
    """
    settings = settings or Settings.load()
    settings.require_authentication()
    protect(*EXPOSED_LOGGERS)
    manager = client_manager(settings)
    sio = socketio.AsyncServer(
        async_mode="asgi",
        client_manager=manager,
        json=wire_json,
        cors_allowed_origins="*",  # the guard below has let through only what is allowed
        # The requests of a long poll would reach one process of several, and then another.
        transports=["websocket"] if settings.workers > 1 else None,
        max_http_buffer_size=MAX_MESSAGE,
    )
    gateway = _gateway(sio, settings, exclusive=True)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        gateway.start()
        metrics.forget_the_dead()
        ending = draining_on_sigterm(lambda: gateway.drain(settings.drain_seconds))
        with relaxed_gc(), ending:
            yield
        await gateway.aclose()
        await manager.aclose()
        await sio.shutdown()

    engine = OriginGuard(socketio.ASGIApp(sio, socketio_path=None), Origins(settings))
    everything = [
        *health_routes(gateway),
        *([metrics_route()] if settings.metrics else []),
        Mount(PATH, app=engine),
        *routes,
    ]
    prefix = settings.path_prefix
    app = _Application(
        engine,
        f"{prefix}{PATH}",
        routes=[Mount(prefix, routes=everything)] if prefix else everything,
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    app.state.sio = sio
    return app
