"""Origin checks: pages of the server's own origin and of configured origins may connect."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from jobcast.realtime import metrics
from jobcast.realtime.connection.budget import TokenBucket
from jobcast.realtime.connection.refusals import RefusalLog, shown
from jobcast.realtime.connection.screening import Refused, refuse
from jobcast.settings import Settings

LOG_RATE: Final = 0.2  # log lines per second about refused origins
LOG_BURST: Final = 5.0  # log lines
MESSAGE: Final = "pages of this origin may not connect (JOBCAST_CORS_ORIGINS)"

# A page that opens a WebSocket was loaded over HTTP: its origin has an HTTP scheme.
SCHEMES: Final = {"ws": "http", "wss": "https"}
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

logger = logging.getLogger(__name__)


def normal_origin(origin: str) -> str:
    """Return an origin as browsers write it: in lower case, without the scheme's default port.

    >>> normal_origin("WSS://App.example.com:443")
    'https://app.example.com'
    """
    scheme, separator, host = origin.strip().lower().partition("://")
    scheme = SCHEMES.get(scheme, scheme)
    return f"{scheme}{separator}{host.removesuffix(DEFAULT_PORTS.get(scheme, '/'))}"


class Origins:
    """The origins whose pages may connect.

    A page of the server's own origin may always connect. The request's headers determine this
    origin: `Host`, or the headers of a proxy (`X-Forwarded-Host`, `-Proto` and `-Port`). A page
    cannot set these headers, nor `Sec-Fetch-Site`.

    Args:
        settings: `JOBCAST_CORS_ORIGINS` and `JOBCAST_INSECURE_ANY_ORIGIN`.
    """

    def __init__(self, settings: Settings) -> None:
        self.any = settings.insecure_any_origin and "*" in settings.cors_origins
        self.listed = tuple(normal_origin(origin) for origin in settings.cors_origins)
        self._log = RefusalLog(logger, TokenBucket(LOG_RATE, LOG_BURST))

    def check(self, origin: str, headers: Mapping[str, str], scheme: str) -> None:
        """Check that a page may connect. The log shows the origins that it was compared with.

        Args: see :meth:`allow`.

        Raises:
            Refused: pages of ``origin`` may not connect.
        """
        if self.allow(origin, headers, scheme):
            return
        own = own_origins(headers, scheme, origin.lower())
        self._log.info(
            "refused a page of the origin %s: it is neither this server's own (%s) nor in"
            " JOBCAST_CORS_ORIGINS (%s). Add it there, or have the proxy pass on Host and"
            " X-Forwarded-Proto",
            shown(origin),
            ", ".join(map(shown, own)) or "unknown: no Host header",
            ", ".join(self.listed) or "not set",
        )
        metrics.REFUSED.labels("http_403").inc()
        raise Refused(HTTPStatus.FORBIDDEN, MESSAGE)

    def allow(self, origin: str, headers: Mapping[str, str], scheme: str) -> bool:
        """Return whether a page of ``origin`` may connect.

        Args:
            origin: the request's `Origin` header.
            headers: the request's headers, with names in lower case.
            scheme: the scheme of the request as the server received it.
        """
        return self.any or self.trust(origin, headers, scheme)

    def trust(self, origin: str, headers: Mapping[str, str], scheme: str) -> bool:
        """Return whether a page of ``origin`` may use credentials that browsers send, like cookies.

        With `JOBCAST_INSECURE_ANY_ORIGIN` other pages may connect, but only with a token.
        With cookies, any page could read everything that the user of the browser may read.

        Args: see :meth:`allow`.
        """
        if headers.get("sec-fetch-site") == "same-origin":
            return True
        given = normal_origin(origin)
        return given in self.listed or given in own_origins(headers, scheme, given)


def own_origins(headers: Mapping[str, str], scheme: str, origin: str = "") -> list[str]:
    """Return the possible origins of the server by a request's headers, the likeliest first.

    Args:
        headers: the request's headers, with names in lower case.
        scheme: the scheme of the request as the server received it.
        origin: the page's origin. An HTTPS origin implies HTTPS if no proxy sends the scheme,
            because a proxy that terminates TLS may omit it.

    >>> own_origins({"host": "inner", "x-forwarded-host": "app.example"}, "https")
    ['https://app.example', 'https://inner']
    """
    forwarded = _first(headers.get("x-forwarded-proto", ""))
    scheme = forwarded or ("https" if origin.startswith("https://") else scheme)
    hosts = [_first(headers.get(name, "")) for name in ("x-forwarded-host", "host")]
    port = _first(headers.get("x-forwarded-port", ""))
    with_port = [f"{host}:{port}" for host in hosts if host and port and not _has_port(host)]
    found = [normal_origin(f"{scheme}://{host}") for host in [*hosts, *with_port] if host]
    return list(dict.fromkeys(found))


class OriginGuard:
    """ASGI middleware that refuses requests from pages of other origins with 403."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = _header(scope, b"origin")
        if origin is not None:
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in scope["headers"]
            }
            if scope["type"] == "http" and b"transport=websocket" in scope["query_string"]:
                # The page asks why its WebSocket did not open. The answer must not depend on
                # Sec-Fetch-Site, which Chromium does not send with the handshake of a WebSocket.
                headers.pop("sec-fetch-site", None)
            try:
                self._origins.check(origin, headers, scope["scheme"])
            except Refused as exc:
                await refuse(scope, receive, send, exc)
                return
        await self._app(scope, receive, send)


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def _first(text: str) -> str:
    """Return the first of several proxies' values, which comes from the outermost proxy."""
    return text.partition(",")[0].strip().lower()


def _has_port(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").port is not None
    except ValueError:
        return True
