"""Errors of the HTTP interface, as problem documents (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Final

import msgspec
from starlette.responses import Response

from jobcast.errors import TokenError
from jobcast.events import Refusal

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER: Final = 5  # seconds that a client should wait while the server cannot answer

# The status of each code of the protocol. The other codes of TokenError are 401.
_STATUSES: Final[Mapping[str, HTTPStatus]] = {
    "feed_not_allowed": HTTPStatus.FORBIDDEN,
    "feeds_unavailable": HTTPStatus.NOT_FOUND,
    "internal_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "invalid_request": HTTPStatus.BAD_REQUEST,
    "job_not_found": HTTPStatus.NOT_FOUND,
    "not_authenticated": HTTPStatus.UNAUTHORIZED,
    "not_cancellable": HTTPStatus.CONFLICT,
    "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_connections": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_jobs": HTTPStatus.BAD_REQUEST,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}


class Problem(Exception):
    """A request is answered with a problem document.

    Args:
        status: the HTTP status.
        code: the reason, for programs.
        detail: the reason, for people.
        retry_after: seconds until the request may be repeated; None for no such header.
        allow: the methods of the path, if the request has another one.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        retry_after: float | None = None,
        *,
        allow: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.allow = allow

    @classmethod
    def of_refusal(cls, refusal: Refusal) -> Problem:
        """Return the problem for a refused request."""
        status = _STATUSES[refusal.code]
        retry_after: float | None = None
        if isinstance(refusal.retry_after, float | int):
            retry_after = refusal.retry_after
        elif status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            retry_after = RETRY_AFTER
        return cls(status, refusal.code, refusal.message, retry_after)

    @classmethod
    def of_token(cls, exc: TokenError) -> Problem:
        """Return the problem for a client that is not authenticated."""
        if exc.code in _STATUSES:
            return cls.of_refusal(Refusal(code=exc.code, message=exc.message))
        return cls(HTTPStatus.UNAUTHORIZED, exc.code, exc.message)

    @classmethod
    def of_method(cls, allow: str) -> Problem:
        """Return the problem for a method that a path does not have."""
        detail = f"the method should be one of {allow}"
        return cls(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", detail, allow=allow)

    @property
    def challenge(self) -> str:
        """The value of ``WWW-Authenticate`` (RFC 6750)."""
        if self.code in ("token_missing", "not_authenticated"):
            return 'Bearer realm="jobcast"'
        return f'Bearer realm="jobcast", error="invalid_token", error_description="{self.code}"'

    def response(self) -> Response:
        """Return the HTTP response."""
        document = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "code": self.code,
            "detail": self.detail,
        }
        headers = {"Cache-Control": "no-store"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(ceil(self.retry_after))
        if self.status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = self.challenge
        if self.allow is not None:
            headers["Allow"] = self.allow
        body = msgspec.json.encode(document)
        return Response(body, self.status.value, headers, media_type=MEDIA_TYPE)
