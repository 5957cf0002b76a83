"""Text on streams whose encoding lacks some of its characters."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Mapping
from typing import Final

ERRORS: Final = "jobcast.plain"

#: What stands for the symbols of `jobcast watch` and of the demo where there are only letters.
PLAIN: Final[Mapping[str, str]] = {
    "✔": "+", "✖": "x", "↻": "~", "⏸": "=", "▸": ">", "·": ".", "…": "...", "─": "-", "━": "-",
    "—": "-", "–": "-", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def write_what_the_encoding_allows() -> None:
    """Let standard output and error write every text: what they cannot encode is escaped."""
    codecs.register_error(ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not in a notebook, nor under a test runner
            stream.reconfigure(errors=ERRORS)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or _escaped(c) for c in found), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
