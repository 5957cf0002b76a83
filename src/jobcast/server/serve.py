"""``jobcast serve``: the Socket.IO process, or several on one port, under uvicorn."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from jobcast.errors import AddressUnavailable
from jobcast.realtime.app import MAX_MESSAGE, create_app
from jobcast.realtime.connection.uvicorn import LimitedHttpProtocol, raise_file_limit
from jobcast.server.logging import log_config
from jobcast.server.supervisor import WORKER_TIMEOUT, Supervisor
from jobcast.server.uvicorn_server import Server
from jobcast.settings import SERVED_ON, Settings

DEFAULT_APP: Final = "jobcast.realtime:create_app"
SHUTDOWN_TIMEOUT: Final = 10  # maximum time for connections to close on shutdown, in seconds
BINDING_PROBLEMS: Final = {
    errno.EADDRINUSE: "another process listens there",
    errno.EACCES: "this user may not listen there",
}


def serve(
    settings: Settings,
    host: str,
    port: int,
    workers: int,
    app_path: str = DEFAULT_APP,
    *,
    factory: bool = False,
) -> None:
    """Serve an ASGI application with uvicorn until a signal arrives.

    With several workers, a supervisor starts them and replaces a worker that dies. SIGHUP replaces
    the workers one after the other, so that jobcast can be upgraded without downtime.

    Args:
        settings: the settings from the environment.
        host: the address to listen on.
        port: the port to listen on.
        workers: the number of processes that share the port.
        app_path: the ASGI application, as ``package.module:name``.
        factory: whether ``app_path`` names a function that returns the application.

    Raises:
        SettingsError: a setting is missing or invalid.
        AddressUnavailable: the process cannot listen on the address.
    """
    check_address(host, port)
    is_default = app_path == DEFAULT_APP
    app = create_app(settings) if is_default else app_path
    raise_file_limit()
    # A custom application reads the environment, and so does each of several workers.
    os.environ["JOBCAST_HOST"] = os.environ[SERVED_ON] = host
    with ExitStack() as stack:
        if workers > 1:
            # The workers read their settings from the environment.
            os.environ["JOBCAST_WORKERS"] = str(workers)
            if settings.metrics:
                shared = stack.enter_context(TemporaryDirectory(prefix="jobcast-metrics-"))
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        config = uvicorn.Config(
            app if workers == 1 else app_path,
            factory=workers > 1 if is_default else factory,
            host=host,
            port=port,
            workers=workers,
            http=LimitedHttpProtocol,
            forwarded_allow_ips=list(settings.trusted_proxies) or None,
            # The only WebSocket implementation of uvicorn that jobcast can limit, and the one
            # that does not use a deprecated API of websockets.
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE,
            # Browsers accept every offer of compression, which costs CPU and memory per connection.
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # Engine.IO has its own pings
            log_config=log_config(),
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
            timeout_worker_healthcheck=WORKER_TIMEOUT,
        )
        stack.enter_context(suppress(KeyboardInterrupt))
        if workers > 1:
            Supervisor(config, [config.bind_socket()]).run()
            return
        server = Server(config)
        server.run()
        if not server.started:
            sys.exit(STARTUP_FAILURE)


def check_address(host: str, port: int) -> None:
    """Check that this process can listen on an address, before anything starts.

    uvicorn logs only the system's error, among other lines. Other problems with the address, such
    as an unknown host, are left to uvicorn.

    Raises:
        AddressUnavailable: another process listens on the address, or this user may not.
    """
    for family, kind, protocol, _, address in _addresses(host, port):
        with suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            problem = _problem_of_binding(probe, address)
            if problem:
                raise AddressUnavailable(host, port, problem)


def _addresses(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return ()


def _problem_of_binding(probe: socket.socket, address: Any) -> str:
    try:
        probe.bind(address)
    except OSError as exc:
        return BINDING_PROBLEMS.get(exc.errno or 0, "")
    return ""
