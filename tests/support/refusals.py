"""Make a Redis or Valkey server answer commands with errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import wait_for

MISCONF: Final = "MISCONF"
NOREPLICAS: Final = "NOREPLICAS"
BUSY: Final = "BUSY"
OOM: Final = "OOM"
ENDLESS: Final = "while true do end"
NO_RETRY: Final = Retry(NoBackoff(), 0)


class Server(Protocol):
    folder: Path
    url: str

    def command(self, *words: Any) -> Any: ...


@contextmanager
def refusing(server: Server, code: str) -> Iterator[None]:
    """Make a server refuse every write with an error code."""
    with _REFUSALS[code](server):
        yield


@contextmanager
def _misconf(server: Server) -> Iterator[None]:
    """Make a snapshot to disk fail."""
    obstacle = server.folder / "dump.rdb"
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    server.command("CONFIG", "SET", "save", "86400 1000000000")
    server.command("BGSAVE")
    wait_for(lambda: _last_save(server) == "err", "failed save")
    try:
        yield
    finally:
        obstacle.rmdir()
        server.command("CONFIG", "SET", "save", "")


@contextmanager
def _configured(server: Server, name: str, value: object) -> Iterator[None]:
    [former] = server.command("CONFIG GET", name).values()
    server.command("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        server.command("CONFIG", "SET", name, former)


@contextmanager
def _busy(server: Server) -> Iterator[None]:
    """Run an endless script."""
    server.command("CONFIG", "SET", "lua-time-limit", 20)

    def run() -> None:
        # A client with a timeout or a retry would leave a script behind.
        with redis.Redis.from_url(server.url, socket_timeout=None, retry=NO_RETRY) as client:
            try:
                client.eval(ENDLESS, 0)
            except redis.RedisError:
                ended.set()  # SCRIPT KILL ended the script

    ended = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: _is_busy(server), "busy server")
    try:
        yield
    finally:
        while not ended.is_set():
            _kill_script(server)
            ended.wait(0.05)
        thread.join()


def _kill_script(server: Server) -> None:
    try:
        server.command("SCRIPT", "KILL")
    except redis.ResponseError as exc:
        if not str(exc).startswith("NOTBUSY"):
            raise


def _last_save(server: Server) -> str:
    status: str = server.command("INFO", "persistence")["rdb_last_bgsave_status"]
    return status


def _is_busy(server: Server) -> bool:
    try:
        server.command("PING")
    except redis.ResponseError as exc:
        return str(exc).startswith("BUSY")
    return False


_REFUSALS: Final = {
    MISCONF: _misconf,
    NOREPLICAS: lambda server: _configured(server, "min-replicas-to-write", 100),
    OOM: lambda server: _configured(server, "maxmemory", 1),
    BUSY: _busy,
}
