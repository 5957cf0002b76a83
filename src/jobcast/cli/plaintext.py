"""Output of text on streams whose encoding lacks some of the characters."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Mapping
from typing import Final

ERRORS: Final = "jobcast.plain"

#: ASCII replacements for the symbols of `jobcast watch` and of the demo.
PLAIN: Final[Mapping[str, str]] = {
    "✔": "+", "✖": "x", "↻": "~", "⏸": "=", "▸": ">", "·": ".", "…": "...", "─": "-", "━": "-",
    "—": "-", "–": "-", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def escape_unencodable_output() -> None:
    """Make standard output and error replace or escape characters that they cannot encode."""
    codecs.register_error(ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # notebooks and test runners replace the streams
            stream.reconfigure(errors=ERRORS)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or _escaped(c) for c in found), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()
