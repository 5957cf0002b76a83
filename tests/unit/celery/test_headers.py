"""The headers of a task's message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from jobcast.celery.headers import due

WHEN = datetime(2030, 5, 4, 3, 2, 1, 5, tzinfo=timezone(timedelta(hours=2)))


class Special(datetime):
    """A subclass with its own text, as in pendulum."""

    def isoformat(self, *_: object) -> str:
        return "in four years"


@pytest.mark.parametrize(
    "when", [WHEN, WHEN.isoformat(), Special.fromtimestamp(WHEN.timestamp(), WHEN.tzinfo)]
)
def test_due_time_can_be_encoded(when: object) -> None:
    assert due(when) == WHEN
    assert msgspec.json.encode(due(when)) == b'"2030-05-04T03:02:01.000005+02:00"'


@pytest.mark.parametrize("when", [datetime(2030, 5, 4), "2030-05-04T00:00:00"])  # noqa: DTZ001
def test_due_time_without_a_zone_is_utc(when: object) -> None:
    assert due(when) == datetime(2030, 5, 4, tzinfo=UTC)


@pytest.mark.parametrize(("when", "seconds"), [(90, 90), (1.5, 1.5), (None, 0)])
def test_due_seconds_count_from_now(when: object, seconds: float) -> None:
    earliest = datetime.now(UTC) + timedelta(seconds=seconds)
    assert (
        earliest - timedelta(milliseconds=1)
        <= due(when)
        <= datetime.now(UTC) + timedelta(seconds=seconds)
    )
