"""Progress as celery-progress stores it, and as Flower shows it."""

from __future__ import annotations

from typing import Any

import pytest

from jobcast.celery.result_backend import meta_of
from jobcast.celery.task_events import text_of
from jobcast.events import JobProgress


def progress(percentage: float | None, **fields: Any) -> JobProgress:
    return JobProgress(job_id="42", percentage=percentage, **fields)


@pytest.mark.parametrize(
    ("event", "current", "total", "percent", "description"),
    [
        (progress(40, message="busy", current=2, total=5), 2, 5, 40, "busy"),
        (progress(100 / 3, current=1, total=3), 1, 3, 33.33, ""),
        (progress(62.5, stage="convert"), 62.5, 100, 62.5, "convert"),
        (progress(62.5, stage="convert", message="page 7"), 62.5, 100, 62.5, "page 7"),
        (progress(None, current=7), 7, 0, 0, ""),
        (progress(None, message="connecting"), 0, 100, 0, "connecting"),
    ],
)
def test_meta_has_the_fields_of_celery_progress(
    event: JobProgress, current: float, total: float, percent: float, description: str
) -> None:
    meta = meta_of(event)
    assert {name: meta[name] for name in ("current", "total", "percent", "description")} == {
        "current": current, "total": total, "percent": percent, "description": description,
    }  # fmt: skip
    assert meta["pending"] is False
    assert meta["percentage"] == event.percentage
    assert not meta.keys() & {"job_id", "seq"}


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (progress(40, message="busy", current=2, total=5), "40 %: busy (2 of 5)"),
        (progress(100 / 3), "33.33 %"),
        (progress(62.5, stage="convert", message="page 7"), "62.5 %: convert, page 7"),
        (progress(None, message="reading", current=1200000), "reading (1200000)"),
        (progress(None, current=7), "(7)"),
        (progress(None), ""),
    ],
)
def test_text_of_a_progress(event: JobProgress, text: str) -> None:
    assert text_of(event) == text
