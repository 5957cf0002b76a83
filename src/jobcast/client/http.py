"""Requests to the HTTP interface of a server, with the client's token. Needs httpx."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPMethod, HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from jobcast.client.address import check_server_url
from jobcast.client.connection import NO_TOKEN
from jobcast.client.retry import RETRYABLE_CODES
from jobcast.errors import ClientError, ConnectionRefused
from jobcast.masking import mask_url

ANSWER_TIMEOUT: Final = 20.0  # seconds that the server may take to answer
SILENCE: Final = 45.0  # seconds without a byte after which a stream is lost; comments come at 15
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"

#: Codes of problems after which the client repeats a request.
REPEATED_CODES: Final = RETRYABLE_CODES | {"too_many_connections"}

# Codes and hints for answers that are not a jobcast server's.
_HINTS: Final[Mapping[int, tuple[str, str]]] = {
    403: ("forbidden", "does a proxy in front of it let this client in?"),
    404: ("not_found", "is the path of its URL right, and does it have JOBCAST_HTTP_API?"),
}
_OTHER_HINT: Final = ("unreachable", "is its URL right, and can its proxy reach it?")
# Statuses with which proxies report that they cannot reach the server now.
_TRANSIENT: Final = frozenset({502, 503, 504})

# The characters of a bearer token (RFC 6750, 2.1).
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")

SyncToken = str | Callable[[], str]


class Unavailable(Exception):
    """A request failed that may succeed later.

    Args:
        problem: the error for the caller if the request is not repeated.
        retry_after: the minimum number of seconds until the request may be repeated.
    """

    def __init__(self, problem: ClientError, retry_after: float = 0.0) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.retry_after = retry_after


class Refused(Exception):
    """The server refused a request, with the code and the detail of a problem document."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@contextmanager
def refusals_as(error: Callable[[str, str, str], ClientError], name: str) -> Iterator[None]:
    """Raise refusals as errors about a job or a feed.

    Args:
        error: makes the error from the name, a code and a message.
        name: the id of the job, or the name of the feed.
    """
    try:
        yield
    except Refused as exc:
        raise error(name, exc.code, exc.detail) from None


class HttpConnection:
    """Authenticated requests to one server.

    Args:
        url: the server's URL. A path precedes the paths of the interface.
        token: a token, or a function that returns one. The function is called for the first
            request, after :meth:`renew_token`, and when the server refuses its token.
        http: the client that sends the requests.

    Raises:
        ValueError: the URL is not valid.
    """

    def __init__(self, url: str, token: SyncToken, http: httpx.Client) -> None:
        check_server_url(url)
        parts = urlsplit(url)
        scheme = parts.scheme.replace("ws", "http")
        self._root = parts._replace(scheme=scheme, query="", fragment="").geturl().rstrip("/")
        self._token = token
        self._known_token = ""
        self._http = http
        self.has_answered = False  # whether a jobcast server has answered a request

    @contextmanager
    def open(
        self,
        path: str,
        media_type: str,
        headers: Mapping[str, str],
        *,
        silence: float,
        body: Mapping[str, Any] | None = None,
    ) -> Iterator[httpx.Response]:
        """Send a request and return the response, whose body has not been read.

        Args:
            path: the path, which begins with a slash, and the query.
            media_type: the type of the answer.
            headers: further headers.
            silence: the maximum number of seconds without a byte of the answer.
            body: the JSON object of a POST request; None for a GET request.

        Raises:
            Unavailable: the server cannot be reached, or cannot answer now; also within the
                context, if the connection breaks.
            Refused: the server refused the request.
            ConnectionRefused: the server refused the token, or it is not a jobcast server.
        """
        headers = {**headers, "Accept": media_type}
        try:
            response = self._send(path, headers, silence, body)
            try:
                self._check(response, media_type)
                self.has_answered = True
                yield response
            finally:
                response.close()
        except httpx.RequestError as exc:
            raise Unavailable(self._unreachable(exc)) from exc

    def renew_token(self) -> None:
        """Call the token function for the next request."""
        self._known_token = ""

    def _send(
        self,
        path: str,
        headers: Mapping[str, str],
        silence: float,
        body: Mapping[str, Any] | None,
    ) -> httpx.Response:
        known = self._known_token
        response = self._send_with(known or self._new_token(), path, headers, silence, body)
        refused = response.status_code == HTTPStatus.UNAUTHORIZED
        if refused and known and callable(self._token):
            response.close()
            return self._send_with(self._new_token(), path, headers, silence, body)
        return response

    def _send_with(
        self,
        token: str,
        path: str,
        headers: Mapping[str, str],
        silence: float,
        body: Mapping[str, Any] | None,
    ) -> httpx.Response:
        request = self._http.build_request(
            HTTPMethod.GET if body is None else HTTPMethod.POST, self._root + path, json=body,
            headers={**headers, "Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT, read=silence),
        )  # fmt: skip
        return self._http.send(request, stream=True)

    def _new_token(self) -> str:
        try:
            token = self._token() if callable(self._token) else self._token
        except Exception as exc:
            problem = ConnectionRefused(NO_TOKEN, f"the token function failed: {exc!r}")
            raise Unavailable(problem) from exc
        self._known_token = _check_token(token)
        return self._known_token

    def _check(self, response: httpx.Response, media_type: str) -> None:
        """Raise the error of an answer that is not the requested one."""
        status = response.status_code
        given = response.headers.get("content-type", "")
        if status == HTTPStatus.NO_CONTENT or (
            status == HTTPStatus.OK and given.partition(";")[0] == media_type
        ):
            return
        response.read()
        refused = _refusal_of(response)
        if refused is None:
            raise self.foreign_answer(response)
        self.has_answered = True
        if status == HTTPStatus.UNAUTHORIZED:
            raise ConnectionRefused(refused.code, refused.detail)
        if refused.code in REPEATED_CODES:
            problem = ConnectionRefused(refused.code, refused.detail)
            raise Unavailable(problem, _retry_after(response))
        raise refused

    def foreign_answer(self, response: httpx.Response) -> Exception:
        """Return the error of an answer of a proxy, or of another server."""
        status = response.status_code
        code, hint = _HINTS.get(status, _OTHER_HINT)
        target = response.headers.get("location")
        if target:
            hint = f"it redirects to {mask_url(target)}: use the URL of the jobcast server there"
        problem = ConnectionRefused(
            code, f"{self._shown} answered {status}, and not as a jobcast server does: {hint}"
        )
        return Unavailable(problem, _retry_after(response)) if status in _TRANSIENT else problem

    def _unreachable(self, exc: httpx.RequestError) -> ConnectionRefused:
        cause = str(exc) or type(exc).__name__
        return ConnectionRefused(
            "unreachable",
            f"the server at {self._shown} cannot be reached ({cause}): does it run, and is its URL"
            " right?",
        )

    @property
    def _shown(self) -> str:
        return mask_url(self._root)


def _check_token(token: object) -> str:
    """Return a token if a header can contain it. The error of httpx would contain the token.

    Raises:
        ConnectionRefused: it is not a token.
    """
    if isinstance(token, str) and _BEARER.fullmatch(token):
        return token
    given = "a text with white space or other characters" if token else "empty"
    if not isinstance(token, str):
        given = f"a value of type {type(token).__name__}"
    raise ConnectionRefused(
        "token_invalid", f"the token should be a JSON Web Token, and it is {given}"
    )


def _refusal_of(response: httpx.Response) -> Refused | None:
    """Return the problem document of an answer; None if it has none."""
    try:
        document = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    code = document.get("code")
    return Refused(code, str(document.get("detail") or code)) if isinstance(code, str) else None


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() else 0.0
