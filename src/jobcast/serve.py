"""``jobcast serve``: the Socket.IO process, or several on one port, under uvicorn."""

from __future__ import annotations

import copy
import errno
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from jobcast.errors import AddressUnavailable
from jobcast.realtime.app import MAX_MESSAGE, create_app
from jobcast.realtime.uvicorn_http import LimitedHttpProtocol, raise_file_limit
from jobcast.settings import SERVED_ON, Settings

DEFAULT_APP: Final = "jobcast.realtime:create_app"
SHUTDOWN_TIMEOUT: Final = 10  # seconds that connections may take to end
# Seconds that a worker may take to start, or to answer the supervisor. A loaded machine needs more
# than uvicorn's 5: a restart would be given up, and a worker that lives be killed with its clients.
WORKER_TIMEOUT: Final = 30
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
    """Serve until a signal comes.

    With several workers a supervisor starts them, and replaces one that dies. SIGHUP replaces them
    one after the other, so that jobcast can be upgraded with no moment without a server.

    Args:
        settings: as they were read from the environment.
        host: where to listen.
        port: on which port.
        workers: processes that share the port.
        app_path: the ASGI application, as ``package.module:name``.
        factory: whether that is a function which makes the application.

    Raises:
        SettingsError: a setting is missing or wrong.
        AddressUnavailable: the process cannot listen there.
    """
    check_address(host, port)
    own = app_path == DEFAULT_APP
    app = create_app(settings) if own else app_path
    raise_file_limit()
    # An application of the user's reads the environment, and so does each of several workers.
    os.environ["JOBCAST_HOST"] = os.environ[SERVED_ON] = host
    with ExitStack() as stack:
        if workers > 1:
            # The workers read the environment, as any Socket.IO process does.
            os.environ["JOBCAST_WORKERS"] = str(workers)
            if settings.metrics:
                shared = stack.enter_context(TemporaryDirectory(prefix="jobcast-metrics-"))
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        config = uvicorn.Config(
            app if workers == 1 else app_path,
            factory=workers > 1 if own else factory,
            host=host,
            port=port,
            workers=workers,
            http=LimitedHttpProtocol,
            forwarded_allow_ips=list(settings.trusted_proxies) or None,
            # The implementation on websockets' sans-I/O layer: the one without a deprecated API.
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE,
            # Browsers accept compression whenever it is offered; it costs CPU and memory for each.
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # Engine.IO has pings of its own
            log_config=_log_config(),
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
            timeout_worker_healthcheck=WORKER_TIMEOUT,
        )
        stack.enter_context(suppress(KeyboardInterrupt))
        if workers > 1:
            Supervisor(config, [config.bind_socket()]).run()
            return
        server = uvicorn.Server(config)
        server.run()
        if not server.started:
            sys.exit(STARTUP_FAILURE)


def check_address(host: str, port: int) -> None:
    """Check that this process can listen, before anything is started.

    uvicorn logs the system's error alone, among other lines. An address that is wrong in another
    way, such as an unknown host, is left to it.

    Raises:
        AddressUnavailable: another process listens there, or it takes more rights.
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


class Supervisor(Multiprocess):
    """uvicorn's, which sees at once that a worker died which it was just asking for a sign of life.

    uvicorn keeps the worker's end of their pipe open, so that the pipe did not end with the worker:
    for all of `WORKER_TIMEOUT` nobody was replaced and no signal heard.
    """

    def keep_subprocess_alive(self) -> None:
        for worker in self.processes:
            worker.child_conn.close()
        super().keep_subprocess_alive()


def _log_config() -> dict[str, Any]:
    """uvicorn's own, with the time, and with what jobcast has to say.

    Without uvicorn's colours: it copies a record for each line, which alone was a tenth of what it
    costs to let a client in.
    """
    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["formatters"]["default"] = {"format": "%(asctime)s %(levelname)-8s %(message)s"}
    config["formatters"]["access"]["fmt"] = (
        '%(asctime)s %(levelname)-8s %(client_addr)s - "%(request_line)s" %(status_code)s'
    )
    config["handlers"]["default"] = {"class": "jobcast.loglines.Lines", "formatter": "default"}
    config["filters"] = {
        "news": {"()": "jobcast.loglines.News"},
        "safe": {"()": "jobcast.log_safety.SafeRecords"},
    }
    for handler in config["handlers"].values():
        handler["filters"] = ["safe"]
    config["loggers"]["uvicorn.error"]["filters"] = ["news"]
    config["loggers"]["jobcast"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    for name in ("engineio.server", "socketio.server"):
        # Without a level they would add handlers of their own, which know no time and no filter.
        config["loggers"][name] = {"handlers": ["default"], "level": "ERROR", "propagate": False}
    return config
