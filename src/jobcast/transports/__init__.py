"""The way from workers to realtime processes: publish, subscribe, history.

The scheme of ``JOBCAST_URL`` selects the transport, and its driver is imported only then.

>>> publisher = open_publisher("memory://")
>>> publisher.emit("job_log", {"level": "info", "message": "hello"}, room="job_42")
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

from jobcast.transports.base import (
    DEFAULT_HISTORY_SIZE,
    DEFAULT_HISTORY_TTL,
    ClientManager,
    Message,
    Outgoing,
    Retention,
    Snapshot,
    Source,
    TransportPublisher,
)

__all__ = [
    "DEFAULT_HISTORY_SIZE",
    "DEFAULT_HISTORY_TTL",
    "SCHEMES",
    "ClientManager",
    "Message",
    "Outgoing",
    "Retention",
    "Snapshot",
    "Source",
    "TransportPublisher",
    "open_manager",
    "open_publisher",
]


class _Classes(NamedTuple):
    publisher: str
    manager: str


_REDIS = _Classes(
    "jobcast.transports.redis:RedisPublisher", "jobcast.transports.redis_source:RedisClientManager"
)
_MEMORY = _Classes(
    "jobcast.transports.memory:MemoryPublisher", "jobcast.transports.memory:MemoryClientManager"
)

SCHEMES: Final[Mapping[str, _Classes]] = {
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "unix": _REDIS,
    "memory": _MEMORY,
}


def open_publisher(url: str, retention: Retention | None = None) -> TransportPublisher:
    """The worker's side of the transport at ``url``: a write-only manager of python-socketio.

    Nothing is connected yet. Raises KeyError for a scheme that is not in ``SCHEMES``.
    """
    cls = _load(SCHEMES[urlsplit(url).scheme].publisher)
    return cast("TransportPublisher", cls(url, retention=retention or Retention()))


def open_manager(url: str, retention: Retention | None = None) -> ClientManager:
    """The realtime side of the transport at ``url``: a client manager for ``AsyncServer``."""
    cls = _load(SCHEMES[urlsplit(url).scheme].manager)
    return cast("ClientManager", cls(url, retention=retention or Retention()))


def _load(path: str) -> type:
    module, _, name = path.partition(":")
    return cast("type", getattr(import_module(module), name))
