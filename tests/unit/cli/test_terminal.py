"""Untrusted text cannot control a terminal."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobcast.cli.terminal import clean, clean_lines, clean_struct
from jobcast.events import JobError, JobLog

CONTROLS = "".join(map(chr, (*range(32), 127, *range(128, 160))))
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
HOSTILE = st.text(
    st.one_of(st.characters(), st.sampled_from(CONTROLS + BIDI + "[]PX^_;0123m\\\u2028\u2029"))
)


@given(HOSTILE)
@example("\x1b\x1b[0m[31m")  # removing the inner sequence must not create another one
@example("\x1b]0;title")  # an unterminated sequence
def test_cleaned_text_is_printable(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert len(cleaned) <= len(text)
    assert clean(cleaned) == cleaned


@given(st.text(st.characters(exclude_categories=("C", "Z"))))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcödé, 日本語", "plain text, ünïcödé, 日本語"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred\x9b0m", "red"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]52;c;cm0gLXJm\x1b\\clipboard", "clipboard"),
        ("\x9d0;owned\x9ctitle", "title"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x1bcreset", "reset"),
        ("\x1b(0lqk", "lqk"),
        ("one\ntwo\r\nthree\ttabs", "one two  three tabs"),
        ("user\u202etxt.exe", "user txt.exe"),
        ("zero\u200bwidth", "zero width"),
        ("\x1b]0;no end", " ]0;no end"),
    ],
)
def test_clean_removes_sequences_and_replaces_controls(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_clean_lines_keeps_line_breaks() -> None:
    assert clean_lines("one\x1b[2J\n\rtwo") == "one\n two"


def test_clean_struct_cleans_every_text() -> None:
    log = clean_struct(JobLog(job_id="a", level="info", message="one\ntwo"))
    assert log.message == "one two"
    error = clean_struct(JobError(job_id="a", error="\x1b[2J", message="\x07", reason="failure"))
    assert (error.error, error.message) == ("", " ")
