"""Cross-origin rules of the HTTP interface: the origins of ``JOBCAST_CORS_ORIGINS``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

from jobcast.realtime.connection.origins import Origins
from jobcast.realtime.connection.screening import Refused
from jobcast.realtime.http.problems import Problem

REQUEST_HEADERS: Final = "Authorization, If-None-Match, Last-Event-ID, Cache-Control, Content-Type"
# Without nosniff, a page of another origin may get a browser to read an answer as a script.
BASE_HEADERS: Final = {"Vary": "Origin", "X-Content-Type-Options": "nosniff"}
# Pages of any origin may read why the server refuses them.
REFUSAL_HEADERS: Final = {**BASE_HEADERS, "Access-Control-Allow-Origin": "*"}
RESPONSE_HEADERS: Final = "ETag, Retry-After"
PREFLIGHT_SECONDS: Final = 600  # for which a browser may keep the answer to a preflight request


class Cors:
    """The headers that let pages of allowed origins read answers.

    Only pages of trusted origins may send cookies.
    """

    def __init__(self, origins: Origins) -> None:
        self._origins = origins

    def headers(self, request: HTTPConnection) -> dict[str, str]:
        """Return the headers for the answer to a request.

        Raises:
            Problem: pages of the request's origin may not read answers.
        """
        headers = dict(BASE_HEADERS)
        origin = request.headers.get("origin")
        if origin is None:
            return headers
        try:
            self._origins.check(origin, request.headers, request.scope["scheme"])
        except Refused as exc:
            raise Problem(exc.status, "forbidden", exc.message) from None
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
        if self._origins.trust(origin, request.headers, request.scope["scheme"]):
            headers["Access-Control-Allow-Credentials"] = "true"
        return headers

    def check_session(self, request: HTTPConnection) -> None:
        """Check that the browser of a session has not sent a request for a page of another site.

        A page whose origin :meth:`headers` has accepted may act for its user. In a request without
        ``Origin``, ``Sec-Fetch-Site`` names the relation of the page's site to the server. Other
        programs than browsers send neither header.

        Raises:
            Problem: the browser has sent the request for a page of another site.
        """
        if "origin" in request.headers:
            return
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            detail = (
                "Sec-Fetch-Site names a page of another site, and the request has no Origin: let"
                " the proxy pass it on, and add the page's origin to JOBCAST_CORS_ORIGINS"
            )
            raise Problem(HTTPStatus.FORBIDDEN, "forbidden", detail)

    def preflight(self, request: HTTPConnection) -> Response:
        """Return the answer to a preflight request.

        Raises:
            Problem: pages of the request's origin may not read answers.
        """
        return Response(
            status_code=HTTPStatus.NO_CONTENT,
            headers={
                **self.headers(request),
                "Access-Control-Allow-Methods": "GET, HEAD, POST",
                "Access-Control-Allow-Headers": REQUEST_HEADERS,
                "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
            },
        )
