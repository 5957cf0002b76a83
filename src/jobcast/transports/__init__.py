"""Transports between workers and server processes: publish, subscribe, read history.

The scheme of ``JOBCAST_URL`` selects the transport. Its driver is imported only when it is needed.

>>> publisher = open_publisher("memory://")
>>> publisher.emit("job_log", {"level": "info", "message": "hello"}, room="job_42")

A package can add a transport through an entry point in the group ``jobcast.transports``. The name
of the entry point is the URL scheme, and its object is a :class:`Transport`. The contract tests for
such a transport are in ``jobcast.testing``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from jobcast.log_safety import protect_own
from jobcast.masking import remember
from jobcast.transports.base import (
    DEFAULT_HISTORY_SIZE,
    DEFAULT_HISTORY_TTL,
    NO_ORIGIN,
    ClientManager,
    Message,
    Origin,
    Outgoing,
    Retention,
    Snapshot,
    Source,
    TransportPublisher,
)
from jobcast.transports.prefix import DEFAULT_PREFIX
from jobcast.transports.runs import UNKNOWN_RUN, Run

__all__ = [
    "DEFAULT_HISTORY_SIZE",
    "DEFAULT_HISTORY_TTL",
    "DEFAULT_PREFIX",
    "ENTRY_POINTS",
    "NO_ORIGIN",
    "SCHEMES",
    "UNKNOWN_RUN",
    "ClientManager",
    "Message",
    "Origin",
    "Outgoing",
    "Retention",
    "Run",
    "Snapshot",
    "Source",
    "Transport",
    "TransportPublisher",
    "check_url",
    "is_in_memory",
    "open_manager",
    "open_publisher",
]

ENTRY_POINTS: Final = "jobcast.transports"


class Transport(NamedTuple):
    """The import paths of a transport's parts, each as ``package.module:name``.

    jobcast calls the classes with the URL and two keyword arguments: ``retention`` (a
    :class:`Retention`) and ``prefix`` (the string with which the names of all keys, channels and
    queues begin).
    """

    publisher: str  # a TransportPublisher
    manager: str  # a ClientManager
    # Takes the URL and the prefix, and raises ValueError for an invalid URL.
    check: str | None = None


_REDIS = Transport(
    "jobcast.transports.redis.publisher:RedisPublisher",
    "jobcast.transports.redis.manager:RedisClientManager",
    "jobcast.transports.redis.servers:check_url",
)
_KOMBU = Transport(
    "jobcast.transports.amqp.publisher:KombuPublisher",
    "jobcast.transports.amqp.source:KombuClientManager",
    "jobcast.transports.amqp.connection:check_url",
)
_MEMORY = Transport(
    "jobcast.transports.memory:MemoryPublisher", "jobcast.transports.memory:MemoryClientManager"
)

SCHEMES: Final[Mapping[str, Transport]] = {
    **{
        scheme + suffix: _REDIS
        for scheme in ("redis", "rediss", "valkey", "valkeys")
        for suffix in ("", "+sentinel", "+cluster")
    },
    "unix": _REDIS,
    "amqp": _KOMBU,
    "amqps": _KOMBU,
    "memory": _MEMORY,
}


def check_url(url: str, prefix: str = DEFAULT_PREFIX) -> None:
    """Check, without connecting, that ``url`` is valid for its transport.

    Raises:
        ValueError: the URL is invalid; the message is written to follow the name of a setting.
    """
    if "@" in url.replace(urlsplit(url).netloc, "", 1):
        # Libraries would read parts of the password as host, port or path, and show them in their
        # errors.
        raise ValueError(
            "should have one @, before the host: in a user, a password or an option write"
            " %40 for @, %2F for /, %3F for ? and %23 for #"
        )
    transport = _transport(url)
    if transport is None:
        # The Sentinel and cluster variants are left out to keep the message short.
        shown = ", ".join(f"{scheme}://" for scheme in SCHEMES if "+" not in scheme)
        raise ValueError(f"should be a URL that begins with one of {shown}")
    if transport.check is not None:
        _load(transport.check)(url, prefix)


def is_in_memory(url: str) -> bool:
    """Return whether ``url`` selects the in-memory transport, which serves one process only."""
    return _transport(url) is _MEMORY


def open_publisher(
    url: str, retention: Retention | None = None, *, prefix: str = DEFAULT_PREFIX
) -> TransportPublisher:
    """Return the worker side of the transport at ``url``: a write-only python-socketio manager.

    This function does not connect.

    Raises:
        ValueError: :func:`check_url` rejects the URL.
    """
    cls = _opened(url, prefix, lambda transport: transport.publisher)
    return cast("TransportPublisher", cls(url, retention=retention or Retention(), prefix=prefix))


def open_manager(
    url: str, retention: Retention | None = None, *, prefix: str = DEFAULT_PREFIX
) -> ClientManager:
    """Return the server side of the transport at ``url``: a client manager for ``AsyncServer``."""
    cls = _opened(url, prefix, lambda transport: transport.manager)
    return cast("ClientManager", cls(url, retention=retention or Retention(), prefix=prefix))


def _opened(url: str, prefix: str, part: Callable[[Transport], str]) -> Any:
    """Return the class of one part of a transport, and hide the URL's secrets in all logs."""
    check_url(url, prefix)
    remember(url)
    cls = _load(part(cast("Transport", _transport(url))))
    protect_own()
    return cls


def _transport(url: str) -> Transport | None:
    scheme = urlsplit(url).scheme
    if scheme in SCHEMES:
        return SCHEMES[scheme]
    for entry_point in entry_points(group=ENTRY_POINTS, name=scheme):
        return cast("Transport", entry_point.load())
    return None


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
