"""The address of a server: its URL and its Socket.IO namespace."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

SCHEMES: Final = frozenset({"http", "https", "ws", "wss"})


def check_server_url(url: str) -> str:
    """Return the path of a server's URL, without leading and trailing slashes.

    Raises:
        ValueError: the URL is not valid.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"the server should be a URL such as http://127.0.0.1:8000, not {url!r}")
    return parts.path.strip("/")


def socketio_path(url: str) -> str:
    """Return the path of Socket.IO on a server, without leading and trailing slashes.

    Raises:
        ValueError: the URL is not valid.
    """
    return f"{check_server_url(url)}/socket.io".lstrip("/")


def check_namespace(namespace: str) -> str:
    """Return ``namespace`` if it is a valid Socket.IO namespace.

    Raises:
        ValueError: it does not begin with a slash, or it has a character that ends a namespace.
    """
    if not namespace.startswith("/") or any(mark in namespace for mark in ",?#"):
        raise ValueError(f"a namespace should begin with / and have no , ? or #, not {namespace!r}")
    return namespace
