"""Titles and tags: what is accepted, and how it is shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcast.events import MAX_TAGS, TAG_MAX_LENGTH, TITLE_MAX_LENGTH, JobInfoUpdate, parse_event
from jobcast.publishing.labels import tags_of, title_of


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("March report", "March report"),
        ("  two\n lines\x00\x1b[31m ", "two lines [31m"),
        (7, "7"),
        (None, None),
        (" \n", None),
        ("x" * 300, "x" * (TITLE_MAX_LENGTH - 1) + "…"),
        ("at redis://bob:hunter2@db/0", "at redis://***@db/0"),
        ("caf\ud800", "caf?"),
    ],
)
def test_title_is_one_bounded_line(title: object, shown: str | None) -> None:
    assert title_of(title) == shown


@given(st.text(st.characters()))
def test_every_title_can_be_published(title: str) -> None:
    shown = title_of(title)
    if shown is not None:
        payload = {"job_id": "1", "timestamp": "2026-01-15T09:30:00Z", "title": shown}
        event = parse_event("job_info", payload)
        assert isinstance(event, JobInfoUpdate)
        assert event.title == shown == title_of(shown)


def test_tags_are_distinct_and_keep_their_order() -> None:
    assert tags_of(["b", "a", "b"]) == ("b", "a")
    assert tags_of(f"tag {n % MAX_TAGS}" for n in range(50)) == tuple(
        f"tag {n}" for n in range(MAX_TAGS)
    )


@pytest.mark.parametrize(
    ("tags", "kind", "message"),
    [
        ("project:7", TypeError, r"pass \['project:7'\] instead of 'project:7'"),
        ([7], TypeError, "not a value of type int"),
        ([""], ValueError, "1 to 128 characters"),
        (["x" * (TAG_MAX_LENGTH + 1)], ValueError, "1 to 128 characters"),
        (["a\nb"], ValueError, "none of them a control character"),
        (["\x85"], ValueError, "none of them a control character"),
        (["\ud800"], ValueError, "lone surrogates"),
        ([str(n) for n in range(MAX_TAGS + 1)], ValueError, "at most 10 tags, not 11"),
    ],
)
def test_invalid_tags_are_refused(tags: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        tags_of(tags)
