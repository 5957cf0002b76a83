"""The errors of connections that a server refused."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiohttp import RequestInfo, WSServerHandshakeError

from jobcast.client.handshake import connection_refused

URL = "http://user:secret@host:8000/x"


def test_refusal_of_the_server_becomes_the_error() -> None:
    payload = {"message": "refused", "data": {"code": "token_expired", "message": "it expired"}}
    error = connection_refused([payload], OSError("closed"), URL)
    assert (error.code, str(error)) == ("token_expired", "it expired")


@pytest.mark.parametrize("payload", [None, "refused", {}, {"data": None}, {"data": {"code": 7}}])
def test_payload_without_code_falls_back_to_the_exception(payload: Any) -> None:
    error = connection_refused([payload], OSError("no route"), URL)
    assert error.code == "unreachable"
    assert "no route" in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "forbidden", "let this client in"),
        (404, "not_found", "path of its URL"),
        (429, "too_many_connections", "too many connections"),
        (500, "unreachable", "forward WebSockets"),
        (502, "unreachable", "does it run"),
        (503, "unavailable", "about to exit"),
        (504, "unreachable", "no answer from it in time"),
    ],
)
def test_status_of_a_refused_handshake_becomes_the_error(status: int, code: str, hint: str) -> None:
    exc = OSError("closed")
    exc.__context__ = WSServerHandshakeError(cast("RequestInfo", None), (), status=status)
    error = connection_refused([], exc, URL)
    assert error.code == code
    assert f"answered {status}" in str(error)
    assert hint in str(error)
    assert "secret" not in str(error)
