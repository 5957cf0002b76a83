"""Cross-origin rules of the HTTP interface: the origins of ``JOBCAST_CORS_ORIGINS``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

from jobcast.realtime.connection.origins import MESSAGE, Origins, normal_origin
from jobcast.realtime.http.problems import Problem

REQUEST_HEADERS: Final = "Authorization, If-None-Match, Last-Event-ID, Cache-Control"
RESPONSE_HEADERS: Final = "ETag, Retry-After"
PREFLIGHT_SECONDS: Final = 600  # for which a browser may keep the answer to a preflight request


class Cors:
    """The headers that let pages of allowed origins read answers.

    Only the server's own origin and listed origins may send cookies: with
    ``JOBCAST_INSECURE_ANY_ORIGIN`` any page could otherwise read what the user of a browser may.
    """

    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    def headers(self, request: HTTPConnection) -> dict[str, str]:
        """Return the headers for the answer to a request.

        Raises:
            Problem: pages of the request's origin may not read answers.
        """
        headers = {"Vary": "Origin"}
        origin = request.headers.get("origin")
        if origin is None:
            return headers
        if not self._origins.allow(origin, request.headers, request.scope["scheme"]):
            raise Problem(HTTPStatus.FORBIDDEN, "forbidden", MESSAGE)
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
        if not self._origins.any or normal_origin(origin) in self._origins.listed:
            headers["Access-Control-Allow-Credentials"] = "true"
        return headers

    def preflight(self, request: HTTPConnection) -> Response:
        """Return the answer to a preflight request.

        Raises:
            Problem: pages of the request's origin may not read answers.
        """
        return Response(
            status_code=HTTPStatus.NO_CONTENT,
            headers={
                **self.headers(request),
                "Access-Control-Allow-Methods": "GET",
                "Access-Control-Allow-Headers": REQUEST_HEADERS,
                "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
            },
        )
