"""Opened and closed WebSockets, and invalid UTF-8, are logged at level debug."""

from __future__ import annotations

import logging

import pytest

from jobcast.realtime.connection.quiet_logger import QUIET_LOGGER

ADDRESS = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("message", "args", "level"),
    [
        ('%s - "WebSocket %s" [accepted]', (ADDRESS, "/socket.io/"), logging.DEBUG),
        ("connection open", (), logging.DEBUG),
        ("connection closed", (), logging.DEBUG),
        ('%s - "WebSocket %s" 403', (ADDRESS, "/socket.io/"), logging.INFO),
        # The arguments come from the client and must not affect the level.
        ("refused %s", ("[accepted]",), logging.INFO),
        (ValueError("no string"), (), logging.INFO),
    ],
)
def test_only_routine_lines_are_logged_at_level_debug(
    message: object, args: tuple[str, ...], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "uvicorn.error"):
        QUIET_LOGGER.info(message, *args)
    assert [record.levelno for record in caplog.records] == [level]


@pytest.mark.parametrize(
    ("message", "level"),
    [
        ("Invalid UTF-8 sequence received from client.", logging.DEBUG),
        ("Exception in ASGI application", logging.ERROR),
    ],
)
def test_invalid_text_of_a_client_causes_no_error(
    message: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "uvicorn.error"):
        QUIET_LOGGER.exception(message)
    assert [record.levelno for record in caplog.records] == [level]
