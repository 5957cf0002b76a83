"""The errors of connections that a server refused."""

from __future__ import annotations

from typing import Any

import pytest

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
