"""The server process as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import socketio
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from jobcast.console.page import console_routes
from jobcast.log_safety import EXPOSED_LOGGERS, protect
from jobcast.realtime import metrics
from jobcast.realtime.connection import wire_json
from jobcast.realtime.connection.origins import OriginGuard, Origins
from jobcast.realtime.connection.screening import Refused, refuse
from jobcast.realtime.element_route import element_route
from jobcast.realtime.gateway import Gateway
from jobcast.realtime.health import health_routes, metrics_route
from jobcast.realtime.http.interface import HttpInterface
from jobcast.server.gc_tuning import relaxed_gc
from jobcast.server.graceful_shutdown import draining_on_signals
from jobcast.settings import DEFAULT_CONSOLE, Settings
from jobcast.transports import ClientManager, open_manager

PATH: Final = "/socket.io"
MAX_MESSAGE: Final = 64 * 1024  # maximum size of a client's message, in bytes


def client_manager(settings: Settings | None = None) -> ClientManager:
    """Return a client manager for a Socket.IO server that :func:`attach` extends.

    >>> sio = socketio.AsyncServer(client_manager=client_manager(), async_mode="asgi")
    >>> attach(sio)
    """
    settings = settings or Settings.load()
    return open_manager(settings.url, settings.retention, prefix=settings.prefix)


def attach(
    sio: socketio.AsyncServer, settings: Settings | None = None, *, namespace: str = "/"
) -> Gateway:
    """Serve jobs on a Socket.IO server that an application already runs.

    From now on every connection to the namespace must authenticate. Handlers that the application
    registered earlier stay active: jobcast calls the ``connect`` handler after it has
    authenticated the client. Call ``await gateway.aclose()`` when the application shuts down.

    The gateway serves one event loop at a time. A connection in another loop restarts the gateway
    in that loop, for example in a test suite with one loop per test.

    Args:
        sio: the Socket.IO server. If its client manager comes from :func:`client_manager`, the
            server and jobcast share one connection to the transport.
        settings: the settings; read from the environment by default.
        namespace: the Socket.IO namespace that clients connect to.

    Raises:
        SettingsError: a setting is missing or invalid.

    >>> sio = socketio.AsyncServer(async_mode="asgi")
    >>> gateway = attach(sio, Settings(url="memory://", jwt_secret="x" * 32))
    """
    return _gateway(sio, settings or Settings.load(), namespace=namespace)


def _gateway(sio: socketio.AsyncServer, settings: Settings, **options: Any) -> Gateway:
    source = getattr(sio.manager, "source", None) or client_manager(settings).source
    return Gateway(sio, source, settings, **options)


class _Application(Starlette):
    """Starlette application that passes Socket.IO WebSockets past the middleware stack.

    The middleware only handles exceptions of HTTP routes. For WebSockets it would have no effect,
    but its stack frames would stay in memory for as long as each connection is open.
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
    """Answer with 404, also for a WebSocket: its client can then tell a wrong path from a refusal.

    Starlette's default only closes the WebSocket.
    """
    await refuse(scope, receive, send, Refused(HTTPStatus.NOT_FOUND, "nothing is at this path"))


def create_app(
    settings: Settings | None = None,
    routes: Sequence[BaseRoute] = (),
    *,
    console: bool = False,
) -> Starlette:
    """Return the ASGI application of the server process.

    The application serves ``/socket.io/``, ``/healthz``, ``/readyz`` and the given routes. Unless
    ``JOBCAST_HTTP_API`` is off, it also serves ``/jobs``, ``/jobs/ID``, ``/jobs/ID/events``,
    ``/events``, ``/feeds/FEED/events``, ``/openapi.json`` and ``/jobcast.js``. ``JOBCAST_METRICS``
    adds ``/metrics``, and ``JOBCAST_CONSOLE`` the console. ``JOBCAST_PATH_PREFIX`` puts all routes
    below a path. On SIGTERM and SIGINT the application moves its clients to other processes before
    the server closes.

    Args:
        settings: the settings; read from the environment by default.
        routes: additional routes, such as a login and a page.
        console: serve the console at ``/console``, also if ``JOBCAST_CONSOLE`` names no path.

    Raises:
        SettingsError: a setting is missing or invalid.
        JobcastError: the console is not built.

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
        cors_allowed_origins="*",  # OriginGuard below checks the origin
        # With several processes, the requests of a long-polling session reach different ones.
        transports=["websocket"] if settings.workers > 1 else None,
        max_http_buffer_size=MAX_MESSAGE,
    )
    features = ["http"] if settings.http_api else []
    gateway = _gateway(sio, settings, exclusive=True, features=features)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        gateway.start()
        metrics.forget_dead_processes()
        ending = draining_on_signals(gateway.drain, settings.drain_seconds)
        with relaxed_gc(), ending:
            yield
        await gateway.aclose()
        await manager.aclose()
        await sio.shutdown()

    interface = HttpInterface(gateway.hub, settings, gateway.start)
    http_routes = [*interface.routes(), element_route()] if settings.http_api else []
    path = settings.console or (DEFAULT_CONSOLE if console else "")
    page = console_routes(path, _sign_in(settings), interface.session_route()) if path else []
    engine = OriginGuard(socketio.ASGIApp(sio, socketio_path=None), Origins(settings))
    all_routes = [
        *health_routes(gateway),
        *([metrics_route()] if settings.metrics else []),
        *http_routes,
        Mount(PATH, app=engine),
        *page,
        *routes,
    ]
    prefix = settings.path_prefix
    app = _Application(
        engine,
        f"{prefix}{PATH}",
        routes=[Mount(prefix, routes=all_routes)] if prefix else all_routes,
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    app.state.sio = sio
    return app


def _sign_in(settings: Settings) -> list[str]:
    """Return how users of the console can sign in."""
    kinds = {"session": settings.authenticate, "token": settings.verifies_tokens}
    return [kind for kind, is_offered in kinds.items() if is_offered]
