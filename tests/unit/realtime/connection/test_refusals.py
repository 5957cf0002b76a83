from __future__ import annotations

import logging

import pytest

from jobcast.realtime.connection.budget import TokenBucket
from jobcast.realtime.connection.refusals import SHOWN, RefusalLog, shown


def test_client_text_is_quoted_escaped_and_truncated() -> None:
    assert shown("a\nb\x1b") == "'a\\nb\\x1b'"
    assert shown("x" * 10_000) == f"'{'x' * SHOWN}...'"
    assert shown(None) == "'None'"


def test_lines_beyond_the_rate_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusals = RefusalLog(logging.getLogger("jobcast.test"), TokenBucket(1, 2, lambda: now))
    with caplog.at_level(logging.INFO):
        for number in range(5):
            refusals.info("refused %d", number)
        now = 1.0
        refusals.info("refused %d", 5)
    assert caplog.messages == [
        "refused 0",
        "refused 1",
        "omitted 3 further lines about refusals",
        "refused 5",
    ]
