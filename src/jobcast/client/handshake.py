"""The error of a connection that a server, or a proxy in front of it, refused."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import WSServerHandshakeError

from jobcast.client.address import socketio_path
from jobcast.errors import ConnectionRefused
from jobcast.masking import mask_url

#: Codes and hints for HTTP statuses that refuse a WebSocket handshake.
STATUS_HINTS: Final = {
    403: ("forbidden", "is the path of its URL right, and does it let this client in?"),
    404: ("not_found", "is the path of its URL right?"),
    429: ("too_many_connections", "this address has too many connections; try again later"),
    502: ("unreachable", "a proxy in front of it does not reach it: does it run?"),
    503: (
        "unavailable",
        "it is full or about to exit, or its proxy does not reach it; try again later",
    ),
    504: ("unreachable", "a proxy in front of it got no answer from it in time"),
}


def connection_refused(refusals: list[Any], exc: BaseException, url: str) -> ConnectionRefused:
    """Return the error of a refused connection, from the server's payload or HTTP status."""
    for refusal in refusals:
        data = refusal.get("data") if isinstance(refusal, dict) else None
        if isinstance(data, dict) and isinstance(data.get("code"), str):
            return ConnectionRefused(data["code"], str(data.get("message") or data["code"]))
    status = _status_of(exc)
    shown = mask_url(url)
    if status is None:
        return ConnectionRefused(
            "unreachable",
            f"the server at {shown} cannot be reached ({exc}): does it run, and is its URL right?",
        )
    code, hint = STATUS_HINTS.get(
        status, ("unreachable", "does a proxy in front of it forward WebSockets?")
    )
    return ConnectionRefused(
        code,
        f"the server at {shown} answered {status} instead of opening a WebSocket at"
        f" /{socketio_path(url)}/: {hint}",
    )


def _status_of(exc: BaseException | None) -> int | None:
    """Return the HTTP status of a refused WebSocket handshake; None if there was no response.

    python-engineio keeps it only in the context of its own exception.
    """
    while exc is not None:
        if isinstance(exc, WSServerHandshakeError):
            return exc.status
        exc = exc.__cause__ or exc.__context__
    return None
