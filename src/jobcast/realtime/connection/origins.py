"""Which pages may connect: those of the server's own origin, and of origins in the settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from jobcast.realtime import metrics
from jobcast.realtime.connection.budget import TokenBucket
from jobcast.realtime.connection.refusals import RefusalLog, shown
from jobcast.realtime.connection.screening import Refused, refuse
from jobcast.settings import Settings

LOG_RATE: Final = 0.2  # lines a second about refused origins
LOG_BURST: Final = 5.0  # lines
MESSAGE: Final = "pages of this origin may not connect (JOBCAST_CORS_ORIGINS)"

# A WebSocket has the origin of the page that opens it, which HTTP brings.
SCHEMES: Final = {"ws": "http", "wss": "https"}
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

logger = logging.getLogger(__name__)


def normal_origin(origin: str) -> str:
    """Return an origin as browsers write it: in lower case, without the scheme's own port.

    >>> normal_origin("WSS://App.example.com:443")
    'https://app.example.com'
    """
    scheme, separator, host = origin.strip().lower().partition("://")
    scheme = SCHEMES.get(scheme, scheme)
    return f"{scheme}{separator}{host.removesuffix(DEFAULT_PORTS.get(scheme, '/'))}"


class Origins:
    """The origins whose pages may connect.

    A page of the server's own origin always may. What that origin is, the request says: by `Host`,
    or by what a proxy tells of the request that it received (`X-Forwarded-Host`, `-Proto` and
    `-Port`). No page can set these headers, nor `Sec-Fetch-Site`.
    """

    def __init__(self, settings: Settings) -> None:
        self.any = settings.insecure_any_origin and "*" in settings.cors_origins
        self.listed = tuple(normal_origin(origin) for origin in settings.cors_origins)

    def allow(self, origin: str, headers: Mapping[str, str], scheme: str) -> bool:
        """Return whether a page of ``origin`` may connect.

        Args:
            origin: the request's own `Origin`.
            headers: the request's headers, with names in lower case.
            scheme: of the request, as the server received it.
        """
        if self.any or headers.get("sec-fetch-site") == "same-origin":
            return True
        given = normal_origin(origin)
        return given in self.listed or given in own_origins(headers, scheme, given)


def own_origins(headers: Mapping[str, str], scheme: str, origin: str = "") -> list[str]:
    """Return the origins that a request's headers give to the server, the likeliest first.

    Args:
        headers: with names in lower case.
        scheme: of the request, as the server received it.
        origin: of the page. An HTTPS origin implies HTTPS where no proxy names the scheme: a proxy
            that terminates TLS does not have to name it.
    """
    forwarded = _first(headers.get("x-forwarded-proto", ""))
    scheme = forwarded or ("https" if origin.startswith("https://") else scheme)
    hosts = [_first(headers.get(name, "")) for name in ("x-forwarded-host", "host")]
    port = _first(headers.get("x-forwarded-port", ""))
    with_port = [f"{host}:{port}" for host in hosts if host and port and not _has_port(host)]
    found = [normal_origin(f"{scheme}://{host}") for host in [*hosts, *with_port] if host]
    return list(dict.fromkeys(found))


class OriginGuard:
    """Refuses requests of pages of other origins with 403, before they reach the application.

    The log says what a refused origin was compared with.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins
        self._log = RefusalLog(logger, TokenBucket(LOG_RATE, LOG_BURST))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = _header(scope, b"origin")
        if origin is not None:
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in scope["headers"]
            }
            if not self._origins.allow(origin, headers, scope["scheme"]):
                self._log_refusal(origin, own_origins(headers, scope["scheme"], origin.lower()))
                metrics.REFUSED.labels("http_403").inc()
                await refuse(scope, receive, send, Refused(HTTPStatus.FORBIDDEN, MESSAGE))
                return
        await self._app(scope, receive, send)

    def _log_refusal(self, origin: str, own: Iterable[str]) -> None:
        self._log.info(
            "refused a page of the origin %s: it is neither this server's own (%s) nor in"
            " JOBCAST_CORS_ORIGINS (%s). Add it there, or have the proxy pass on Host and"
            " X-Forwarded-Proto",
            shown(origin),
            ", ".join(map(shown, own)) or "unknown: there is no Host",
            ", ".join(self._origins.listed) or "not set",
        )


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def _first(text: str) -> str:
    """Return the first of several proxies' values: that of the one which clients reach."""
    return text.partition(",")[0].strip().lower()


def _has_port(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").port is not None
    except ValueError:
        return True
