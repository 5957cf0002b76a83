"""Clients cannot forge log lines, and the log contains no credentials."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcast import log_safety
from jobcast.log_safety import (
    LONGEST_LINE,
    SafeRecords,
    protect,
    safe_line,
)
from jobcast.masking import remember
from jobcast.transports import open_publisher


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(output: io.StringIO) -> Iterator[logging.Logger]:
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.addFilter(SafeRecords())
    # Constructed directly, so that the logger has no parent.
    logger = logging.Logger("test of safety", logging.DEBUG)  # noqa: LOG001
    logger.addHandler(handler)
    yield logger
    handler.close()


@given(st.text())
def test_safe_line_returns_one_printable_line(text: str) -> None:
    assert safe_line(text).isprintable()
    assert safe_line(safe_line(text)) == safe_line(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("an ordinary line, ünïcödé", "an ordinary line, ünïcödé"),
        ("Invalid session a\nINFO forged", "Invalid session a\\nINFO forged"),
        ("\x1b[31mred\u202e", "\\x1b[31mred\\u202e"),
        (
            "GET /socket.io/?EIO=4&transport=polling&sid=abc HTTP/1.1",
            "GET /socket.io/?EIO=4&transport=polling&sid=*** HTTP/1.1",
        ),
        ('"WebSocket /?s%69d=abc&EIO=4" 403', '"WebSocket /?s%69d=***&EIO=4" 403'),
        ("GET /x?token=a.b.c&access_token=d&page=2", "GET /x?token=***&access_token=***&page=2"),
        ("cannot reach redis://bob:hunter2@h/0", "cannot reach redis://***@h/0"),
    ],
)  # fmt: skip
def test_filter_escapes_controls_and_masks_secrets(
    logger: logging.Logger, output: io.StringIO, text: str, shown: str
) -> None:
    logger.info("%s", text)
    logger.info(text)
    assert output.getvalue() == f"INFO {shown}\n" * 2


def test_long_log_lines_are_truncated(logger: logging.Logger, output: io.StringIO) -> None:
    logger.info("x" * 10 * LONGEST_LINE)
    assert output.getvalue() == f"INFO {'x' * LONGEST_LINE}…\n"


def test_tracebacks_are_indented_and_masked(logger: logging.Logger, output: io.StringIO) -> None:
    remember("redis://:a-remembered-password@h")
    try:
        raise ValueError("AUTH a-remembered-password\nINFO forged\x1b[2J")
    except ValueError:
        logger.exception("failed: %s", "\r")
    first, *others = output.getvalue().splitlines()
    assert first == "ERROR failed: \\r"
    assert all(line.startswith("  ") for line in others)
    assert others[0] == "  Traceback (most recent call last):"
    assert others[-2:] == ["  ValueError: AUTH ***", "  INFO forged\\x1b[2J"]


def test_access_log_records_keep_their_arguments(output: io.StringIO) -> None:
    path = "/socket.io/?sid=abc&EIO=4"
    arguments = ("1.2.3.4:5", "GET", path, "1.1", 200)
    record = logging.LogRecord("uvicorn.access", 20, "", 0, "%s %s %s %s %d", arguments, None)
    assert SafeRecords().filter(record)
    assert record.args == ("1.2.3.4:5", "GET", "/socket.io/?sid=***&EIO=4", "1.1", 200)


def test_a_record_is_masked_once_unless_another_filter_changes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masked: list[str] = []

    def mask(text: str) -> str:
        masked.append(text)
        return text

    monkeypatch.setattr(log_safety, "mask", mask)
    record = logging.LogRecord("shop", 20, "", 0, "hello %s", ("alice",), None)
    for _ in range(2):
        assert SafeRecords().filter(record)
    assert masked == ["hello alice"]
    record.msg = "GET /?token=a.b.c"
    assert SafeRecords().filter(record)
    assert (record.msg, masked[1:]) == ("GET /?token=***", ["GET /?token=***"])
    record.msg, record.args = "%s", ("GET /?token=a.b.c",)
    assert SafeRecords().filter(record)
    assert record.getMessage() == "GET /?token=***"


def test_protect_adds_one_filter() -> None:
    logger = logging.getLogger("tests.protected")
    protect(logger.name)
    protect(logger.name)
    assert [type(some) for some in logger.filters] == [SafeRecords]


def test_driver_error_is_logged_without_the_password(caplog: pytest.LogCaptureFixture) -> None:
    publisher = open_publisher("redis://bob:a-drivers-password@h/0")
    logger = logging.getLogger("jobcast.transports.redis.publisher")
    echo = (
        "unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'bob' 'a-drivers-password'"
    )
    try:
        raise ConnectionError(echo)
    except ConnectionError as exc:
        logger.warning("the connection to Redis is down: %s", exc, exc_info=True)
    assert "the connection to Redis is down: unknown command 'HELLO'" in caplog.text
    assert "'AUTH' 'bob' '***'" in caplog.text
    assert "a-drivers-password" not in caplog.text
    publisher.close()
