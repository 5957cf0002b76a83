"""The way from workers to realtime processes: publish, subscribe, history.

The scheme of ``JOBCAST_URL`` selects the transport, and its driver is imported only then.

>>> publisher = open_publisher("memory://")
>>> publisher.emit("job_log", {"level": "info", "message": "hello"}, room="job_42")

A package may bring a transport of its own by an entry point of the group ``jobcast.transports``,
whose name is the scheme and whose object is a :class:`Transport`. ``jobcast.testing`` has the tests
that it should pass.
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
from jobcast.transports.runs import NOBODY, Run

__all__ = [
    "DEFAULT_HISTORY_SIZE",
    "DEFAULT_HISTORY_TTL",
    "DEFAULT_PREFIX",
    "ENTRY_POINTS",
    "NOBODY",
    "NO_ORIGIN",
    "SCHEMES",
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
    """Where the parts of a transport are, each as ``package.module:name``.

    The classes are called with the URL and, by name, ``retention`` (a :class:`Retention`) and
    ``prefix`` (a string that the names of all keys, channels and queues begin with).
    """

    publisher: str  # a TransportPublisher
    manager: str  # a ClientManager
    # Called with the URL and the prefix; raises ValueError if the URL cannot be used.
    check: str | None = None


_REDIS = Transport(
    "jobcast.transports.redis:RedisPublisher",
    "jobcast.transports.redis_source:RedisClientManager",
    "jobcast.transports.redis_servers:check_url",
)
_KOMBU = Transport(
    "jobcast.transports.kombu:KombuPublisher",
    "jobcast.transports.kombu_source:KombuClientManager",
    "jobcast.transports.kombu:check_url",
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
    """Check that a transport can be opened at ``url``, without connecting to anything.

    Raises:
        ValueError: it cannot; the text goes after the name of a setting.
    """
    if "@" in url.replace(urlsplit(url).netloc, "", 1):
        # Libraries would take the parts of the password for a host, a port or a path, and show them
        # in their errors.
        raise ValueError(
            "should have one @, before the host: in a user, a password or an option write"
            " %40 for @, %2F for /, %3F for ? and %23 for #"
        )
    transport = _transport(url)
    if transport is None:
        # Sentinel and cluster go without saying here.
        shown = ", ".join(f"{scheme}://" for scheme in SCHEMES if "+" not in scheme)
        raise ValueError(f"should be a URL that begins with one of {shown}")
    if transport.check is not None:
        _load(transport.check)(url, prefix)


def is_in_memory(url: str) -> bool:
    """Return whether a transport reaches no other process than the one that opens it."""
    return _transport(url) is _MEMORY


def open_publisher(
    url: str, retention: Retention | None = None, *, prefix: str = DEFAULT_PREFIX
) -> TransportPublisher:
    """The worker's side of the transport at ``url``: a write-only manager of python-socketio.

    Nothing is connected yet. Raises ValueError for a URL that :func:`check_url` does not take.
    """
    cls = _opened(url, prefix, lambda transport: transport.publisher)
    return cast("TransportPublisher", cls(url, retention=retention or Retention(), prefix=prefix))


def open_manager(
    url: str, retention: Retention | None = None, *, prefix: str = DEFAULT_PREFIX
) -> ClientManager:
    """The realtime side of the transport at ``url``: a client manager for ``AsyncServer``."""
    cls = _opened(url, prefix, lambda transport: transport.manager)
    return cast("ClientManager", cls(url, retention=retention or Retention(), prefix=prefix))


def _opened(url: str, prefix: str, part: Callable[[Transport], str]) -> Any:
    """Return the class of one part of the transport at ``url``, whose secrets no log shows."""
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
