"""Parsed requests of the HTTP interface."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct
from starlette.requests import ClientDisconnect, Request

from jobcast.errors import InvalidJobId
from jobcast.events import (
    MAX_BODY_BYTES,
    SEQ_MAX,
    CancelJob,
    CancelMessage,
    Cursor,
    check_job_id,
)
from jobcast.realtime.http.problems import Problem

STREAM_JOBS: Final = 50  # jobs of one stream; each id of an event has the positions of all
MAX_QUERY: Final = 16 * 1024  # bytes
BODY_TIMEOUT: Final = 10.0  # seconds until the body of a request has arrived
MAX_WAIT: Final = 60.0  # seconds
MAX_LINES: Final = 1000  # log lines

_CURSOR: Final = re.compile(r"([0-9A-Za-z_-]{1,64}):([0-9]{1,16})\Z")


class StateRequest(Struct, frozen=True):
    """A request for the state of a job."""

    job_id: str
    wait: float = 0.0  # seconds to wait for the end of the job
    lines: int = 0  # latest log lines to include


class _Cancel(Struct, frozen=True):
    message: CancelMessage = ""


class StreamRequest(Struct, frozen=True):
    """A request for the events of jobs, each with the position of the client."""

    jobs: dict[str, Cursor | None]


def path_below(request: Request, root: str) -> str:
    """Return the part of a request's path below ``root``, still encoded.

    In the name of a job or a feed, a slash is written as ``%2F``. Some proxies decode it.
    """
    raw = request.scope.get("raw_path") or b""
    _, found, stem = raw.partition(b"?")[0].decode("latin-1").partition(root)
    if not found:  # the server provides no raw path, or the client has encoded more than a slash
        stem = quote(request.scope["path"].partition(root)[2], safe="/")
    return stem


def target_of(request: Request, prefix: str) -> tuple[str, bool]:
    """Return the job id of a path below ``/jobs/``, and whether the path names the job's events.

    The last segment decides about the events, because a job id may contain slashes.

    Raises:
        Problem: the path has no valid job id.
    """
    stem = path_below(request, f"{prefix}/jobs/")
    wants_events = stem.endswith("/events")
    return _job_id(unquote(stem.removesuffix("/events") if wants_events else stem)), wants_events


def job_to_cancel(request: Request, prefix: str) -> str:
    """Return the job id of a path below ``/jobs/`` that ends with ``/cancel``.

    Raises:
        Problem: the path has no valid job id, or ``cancel`` is a part of the job id.
    """
    stem = path_below(request, f"{prefix}/jobs/")
    if not stem.endswith("/cancel"):
        raise Problem.of_method("GET, HEAD, OPTIONS")
    return _job_id(unquote(stem.removesuffix("/cancel")))


async def parse_cancel(request: Request, job_id: str) -> CancelJob:
    """Parse the body of a request to cancel a job: a JSON object, or nothing.

    Raises:
        Problem: the body is too long, late or invalid.
    """
    body = await _body(request)
    if not body.strip():
        return CancelJob(job_id=job_id)
    try:
        wanted = msgspec.json.decode(body, type=_Cancel)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise invalid(f'the body should be JSON such as {{"message": "TEXT"}}: {exc}') from None
    return CancelJob(job_id=job_id, message=wanted.message)


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for part in request.stream():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise Problem(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        "invalid_request",
                        f"the body should have at most {MAX_BODY_BYTES} bytes",
                    )
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_TIMEOUT:.0f} s"
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "invalid_request", detail) from None
    except ClientDisconnect:
        raise invalid("the client has disconnected") from None
    return bytes(body)


def parse_state(request: Request, job_id: str) -> StateRequest:
    """Parse a request for a job's state.

    Raises:
        Problem: a parameter is invalid.
    """
    return StateRequest(
        job_id,
        _number(request, "wait", MAX_WAIT, "seconds"),
        int(_number(request, "logs", MAX_LINES, "log lines")),
    )


def parse_stream(request: Request, jobs: Sequence[str], max_jobs: int) -> StreamRequest:
    """Parse a request for the events of jobs.

    ``Last-Event-ID`` has precedence over ``?after=``: when a browser reconnects, it sends the
    header with the URL of the first request.

    Raises:
        Problem: a job id or the position is invalid, or there are too many jobs.
    """
    unique = list(dict.fromkeys(_job_id(job) for job in jobs))
    if not unique:
        raise invalid("name at least one job, as in /events?job=42")
    limit = min(STREAM_JOBS, max_jobs)
    if len(unique) > limit:
        raise Problem(HTTPStatus.BAD_REQUEST, "too_many_jobs", f"a stream may follow {limit} jobs")
    text = request.headers.get("last-event-id") or request.query_params.get("after") or ""
    entries = text.split(",") if text else [""] * len(unique)
    if len(entries) != len(unique):
        raise invalid(
            f"the position should have {len(unique)} entries, one for each job in the order of the"
            f" URL, not {len(entries)}"
        )
    return StreamRequest(dict(zip(unique, map(_cursor, entries), strict=True)))


def token_of(request: Request, *, in_query: bool) -> str | None:
    """Return the token of a request, or None without one.

    Credentials of another kind are no token: ``JOBCAST_AUTHENTICATE`` may know them.

    Args:
        request: the request.
        in_query: whether the parameter ``token`` may contain it.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.query_params.get("token") if in_query else None


def check_size(request: Request) -> None:
    """Check the size of a request's query.

    Raises:
        Problem: the query is too long.
    """
    if len(request.scope["query_string"]) > MAX_QUERY:
        raise Problem(
            HTTPStatus.REQUEST_URI_TOO_LONG, "invalid_request",
            f"the query should have at most {MAX_QUERY} bytes",
        )  # fmt: skip


def format_cursor(cursor: Cursor | None) -> str:
    """Return a position as text; an empty text for none.

    >>> format_cursor(Cursor(epoch="9f", seq=7))
    '9f:7'
    """
    return "" if cursor is None else f"{cursor.epoch}:{cursor.seq}"


def invalid(detail: str) -> Problem:
    """Return the problem of a request with an invalid parameter."""
    return Problem(HTTPStatus.BAD_REQUEST, "invalid_request", detail)


def _job_id(text: str) -> str:
    try:
        return check_job_id(text)
    except InvalidJobId as exc:
        raise invalid(str(exc)) from None


def _cursor(text: str) -> Cursor | None:
    if not text:
        return None
    match = _CURSOR.match(text)
    if match is None or int(match[2]) > SEQ_MAX:
        raise invalid("a position should be EPOCH:SEQ, as in the id of an event")
    return Cursor(epoch=match[1], seq=int(match[2]))


def _number(request: Request, name: str, high: float, unit: str) -> float:
    text = request.query_params.get(name, "0")
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise invalid(f"{name} should be a number of {unit}, not {text[:40]!r}")
    return min(number, high)
