"""Parsers of the values of settings. Each raises ValueError, which names the expected value."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Final, TypeVar
from urllib.parse import urlsplit

from jobcast.events import LEVELS

DEFAULT_CONSOLE: Final = "/console"
#: The first segments of the server's own paths.
SERVER_PATHS: Final = frozenset(
    {
        "events", "feeds", "healthz", "jobcast.js", "jobs", "metrics", "openapi.json", "readyz",
        "socket.io",
    }
)  # fmt: skip

N = TypeVar("N", int, float)


def http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("should be a URL such as https://auth.example.com/.well-known/jwks.json")
    if "@" in parts.netloc:
        raise ValueError("should have no user and password: they are not sent to the server")
    return text


def comma_separated(text: str) -> tuple[str, ...]:
    return tuple(item for item in (part.strip() for part in text.split(",")) if item)


def check_origin(text: str) -> str:
    """Return ``text`` if it is an origin, such as ``https://app.example.com``.

    Raises:
        ValueError: the text is not an origin.
    """
    parts = urlsplit(text)
    if not parts.scheme or not parts.netloc or parts.path or parts.query:
        raise ValueError(
            "an origin is a scheme, a host and perhaps a port, with no slash at the end, as in"
            f" https://app.example.com, not {text!r}"
        )
    return text


def origins(text: str) -> tuple[str, ...]:
    items = comma_separated(text)
    for item in items:
        if item != "*":
            try:
                check_origin(item)
            except ValueError as exc:
                raise ValueError(f"has {item!r}: {exc}") from None
    return items


def addresses(text: str) -> tuple[str, ...]:
    items = comma_separated(text)
    for item in items:
        if item == "*":
            raise ValueError(
                "may not be *: every client could choose its own address; list the addresses"
                " or networks of your proxies, as in 10.0.0.5,10.1.0.0/16"
            )
        try:
            ip_network(item)
        except ValueError as exc:
            raise ValueError(
                f"has {item!r}, which is not an IP address or network: {exc}"
            ) from None
    return items


def boolean(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError(f"should be true or false, not {text!r}")


def function_name(text: str) -> str:
    module, colon, function = text.partition(":")
    if not colon or not module or not function:
        raise ValueError(f"should be package.module:function, not {text!r}")
    return text


def whole_number(low: int, high: int, unit: str) -> Callable[[str], int]:
    return _number(int, low, high, f"a whole number of {unit}")


def seconds(low: int, high: int) -> Callable[[str], float]:
    return _number(float, low, high, "a number of seconds")


def _number(convert: type[N], low: int, high: int, noun: str) -> Callable[[str], N]:
    def parse(text: str) -> N:
        problem = f"should be {noun} from {low} to {high}, not {text!r}"
        try:
            number = convert(text)
        except ValueError:
            raise ValueError(problem) from None
        if not low <= number <= high:
            raise ValueError(problem)
        return number

    return parse


def port_number(text: str) -> int:
    if text.startswith("tcp://"):
        raise ValueError(
            f"should be a port number, not {text!r}: Kubernetes sets this variable for a Service"
            " that is called jobcast; give the pod enableServiceLinks: false"
        )
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise ValueError(f"should be a port number from 0 to 65535, not {text!r}")
    return int(text)


def path_prefix(text: str) -> str:
    """Return a path prefix with a leading slash and no trailing slash.

    Raises:
        ValueError: the text is not a path.
    """
    path = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", path) or "//" in path:
        raise ValueError(f"should be a path such as /jobs, not {text!r}")
    return f"/{path}" if path else ""


def console_path(text: str) -> str:
    """Return the path of the console; an empty string if it is switched off.

    Raises:
        ValueError: the text is no path, or a path of the server itself.

    >>> console_path("true"), console_path("/ops/jobs/"), console_path("off")
    ('/console', '/ops/jobs', '')
    """
    if not text.startswith("/"):
        try:
            return DEFAULT_CONSOLE if boolean(text) else ""
        except ValueError:
            raise ValueError(f"should be true or a path such as /console, not {text!r}") from None
    path = path_prefix(text)
    first = path.partition("/")[2].partition("/")[0]
    if not first or first in SERVER_PATHS:
        raise ValueError(f"should be a path that the server does not use itself, not {text!r}")
    return path


def public_url(text: str) -> str:
    if text.startswith("/"):
        return path_prefix(text)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "should be a URL such as https://jobs.example.com, or a path such as /jobcast,"
            f" not {text!r}"
        )
    return text.rstrip("/")


def log_level(text: str) -> str:
    if text.lower() not in ("off", *LEVELS):
        raise ValueError(f"should be one of off, {', '.join(LEVELS)}, not {text!r}")
    return text.lower()
