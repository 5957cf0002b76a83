"""The answers of an application's endpoints, which are the same in every web framework."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final, Literal
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener
from uuid import UUID

import msgspec
from msgspec import Struct

from jobcast.events import MAX_BODY_BYTES, is_job_id, job_path
from jobcast.issuing import TOKEN_TTL, default_settings, issue_token
from jobcast.settings import Settings

#: Headers of every answer: a cache must keep neither a token nor a user's job.
PRIVATE: Final = {"Cache-Control": "no-store", "Vary": "Authorization, Cookie"}
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
PROXY_TOKEN_TTL: Final = 90  # seconds
PROXY_TIMEOUT: Final = 20  # seconds

Subject = str | int | UUID


class Answer(Struct, frozen=True):
    """An HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    location: str = ""  # the target of a redirect

    @property
    def headers(self) -> dict[str, str]:
        return {**PRIVATE, "Location": self.location} if self.location else PRIVATE


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: urllib would send the user's token to its target."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request, so that the redirect is an :class:`HTTPError`."""


_opener: Final = build_opener(_NoRedirects)


class Endpoint:
    """The endpoints of an application, for a user whom the application has authenticated.

    Args:
        settings: the settings; by default those of the environment and of the Celery application
            that has ``jobcast_*`` settings.
        ttl: lifetime of tokens, in seconds.
        internal_url: the URL at which this process reaches the server. The default is
            ``JOBCAST_PUBLIC_URL`` if that has a host, else the server's own address.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        ttl: float = TOKEN_TTL,
        internal_url: str | None = None,
    ) -> None:
        self._settings = settings
        self.ttl = ttl
        self._internal_url = internal_url

    @property
    def settings(self) -> Settings:
        """The settings. They are read at each use, because Celery may be configured later."""
        return self._settings or default_settings()

    def token(
        self, user: Subject | None, *, jobs: Iterable[str] = (), jti: str | None = None
    ) -> Answer:
        """Return the fields of :meth:`issue` as an answer. Without a user, return 401."""
        if user is None:
            return signed_out()
        return Answer(HTTPStatus.OK, msgspec.json.encode(self.issue(user, jobs=jobs, jti=jti)))

    def issue(
        self, user: Subject, *, jobs: Iterable[str] = (), jti: str | None = None
    ) -> dict[str, Any]:
        """Return a token for a user, when it expires, and the server's URL.

        Raises:
            SettingsError: the settings have no key that signs, or a setting is wrong.
        """
        settings = self.settings
        ttl = min(self.ttl, settings.jwt_max_lifetime or self.ttl)
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=int(ttl))
        return {
            "token": issue_token(user, jobs=jobs, ttl=ttl, jti=jti, settings=settings),
            "expires_at": expires_at.isoformat().replace("+00:00", "Z"),
            "url": settings.client_url,
        }

    def snapshot(self, user: Subject | None, job_id: str, query: str = "") -> Answer:
        """Return the server's answer to ``GET /jobs/ID`` for a user. Blocks until it arrives.

        Without a user, return 401. If the server cannot be reached, return 502. The parameter
        ``wait`` has no effect: a few waiting clients would occupy all workers of the application.
        """
        if user is None:
            return signed_out()
        if not is_job_id(job_id):
            return no_such_job("follow")
        return self._ask(user, f"{job_path(job_id)}{_query_of(_chosen(query, 'logs'))}")

    def cancel(
        self, user: Subject | None, job_id: str, content_type: str | None, body: bytes
    ) -> Answer:
        """Return the server's answer to ``POST /jobs/ID/cancel`` for a user, which blocks.

        The type has to be JSON: the page of another site cannot send it with the user's cookies,
        because browsers ask first. Without a user, return 401. If the server cannot be reached,
        return 502.

        Args:
            user: the user of the request.
            job_id: the job.
            content_type: the header of the request.
            body: ``{"message": "..."}``, or ``{}``.
        """
        if user is None:
            return signed_out()
        if (content_type or "").partition(";")[0].strip().lower() != JSON:
            return problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "invalid_request",
                f"The Content-Type has to be {JSON}.",
            )
        if len(body) > MAX_BODY_BYTES:
            return problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "invalid_request",
                f"The body may have {MAX_BODY_BYTES} bytes.",
            )
        if not is_job_id(job_id):
            return no_such_job("cancel")
        return self._ask(user, f"{job_path(job_id)}/cancel", body or b"{}")

    def events(
        self, user: Subject | None, job_id: str, query: str = "", *, jti: str | None = None
    ) -> Answer:
        """Redirect a user to the event stream of a job on the server. Without a user, return 401.

        If the server reads tokens from URLs (``JOBCAST_TOKEN_IN_QUERY``), the URL has a token for
        the user. Otherwise the server has to recognise the user itself
        (``JOBCAST_AUTHENTICATE``).
        """
        if user is None:
            return signed_out()
        if not is_job_id(job_id):
            return no_such_job("follow")
        settings = self.settings
        chosen = _chosen(query, "after")
        if settings.token_in_query:
            chosen.append(("token", self.issue(user, jti=jti)["token"]))
        url = f"{settings.client_url}{job_path(job_id)}/events{_query_of(chosen)}"
        return Answer(HTTPStatus.TEMPORARY_REDIRECT, location=url)

    def _ask(self, user: Subject, path: str, body: bytes | None = None) -> Answer:
        """Return the server's answer to a request for a user: a POST request with a body."""
        token = issue_token(user, ttl=PROXY_TOKEN_TTL, settings=self.settings)
        headers = {"Authorization": f"Bearer {token}"}
        if body is not None:
            headers["Content-Type"] = JSON
        request = Request(f"{self._server_url}{path}", data=body, headers=headers)  # noqa: S310
        try:
            return _read_answer(request)
        except (OSError, HTTPException):  # urllib raises the latter for an incomplete answer
            return unavailable()

    @property
    def _server_url(self) -> str:
        settings = self.settings
        if self._internal_url is not None:
            return self._internal_url.rstrip("/")
        if "://" in settings.client_url:
            return settings.client_url
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
        return f"http://{host}:{settings.port}{settings.path_prefix}"


def _read_answer(request: Request) -> Answer:
    """Return the answer to a request.

    Raises:
        OSError, HTTPException: there is none, or it is incomplete.
    """
    try:
        with _opener.open(request, timeout=PROXY_TIMEOUT) as response:
            return Answer(response.status, response.read())
    except HTTPError as exc:
        with exc:
            if exc.code < HTTPStatus.BAD_REQUEST:
                return unavailable()
            return Answer(exc.code, exc.read(), exc.headers.get_content_type())


def signed_out() -> Answer:
    """Return the answer to a request without a user."""
    return problem(HTTPStatus.UNAUTHORIZED, "signed_out", "You are not signed in.")


def no_such_job(request: Literal["follow", "cancel"]) -> Answer:
    """Return the answer for an id that cannot be a job's, as the server gives it."""
    detail = f"This job does not exist, or you may not {request} it."
    return problem(HTTPStatus.NOT_FOUND, "job_not_found", detail)


def unavailable() -> Answer:
    """Return the answer if there is none of the server."""
    return problem(HTTPStatus.BAD_GATEWAY, "unavailable", "The server of jobs cannot be reached.")


def problem(status: HTTPStatus, code: str, detail: str) -> Answer:
    """Return an answer in the format of the server's problems (RFC 9457)."""
    body: dict[str, Any] = {"title": status.phrase, "status": int(status), "code": code}
    return Answer(status, msgspec.json.encode({**body, "detail": detail}), PROBLEM)


def _chosen(query: str, *names: str) -> list[tuple[str, str]]:
    """Return the parameters of a query that have these names."""
    return [(name, value) for name, value in parse_qsl(query) if name in names]


def _query_of(parameters: list[tuple[str, str]]) -> str:
    """Return the query of a URL; empty without parameters."""
    return f"?{urlencode(parameters)}" if parameters else ""
