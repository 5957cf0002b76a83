"""The pauses of the Python client before it repeats a refused request."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from jobcast.client.retry import LONGEST_PAUSE, PAUSE_SPREAD, pause_before_retry
from jobcast.events import Refusal


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        (2.0, 2.0, 2.0 * (1 + PAUSE_SPREAD)),
        (1e300, LONGEST_PAUSE, LONGEST_PAUSE * (1 + PAUSE_SPREAD)),
        (0.0, 0.1, 1.0),
        (-5.0, 0.1, 1.0),
        (None, 0.1, 1.0),
    ],
)
def test_pause_follows_retry_after_within_bounds(
    retry_after: float | None, least: float, most: float
) -> None:
    requested = UNSET if retry_after is None else retry_after
    refusal = Refusal(code="rate_limited", message="too many requests", retry_after=requested)
    pauses = {pause_before_retry(refusal, delay=1.0) for _ in range(50)}
    assert all(least <= pause <= most for pause in pauses)
    assert len(pauses) > 1
