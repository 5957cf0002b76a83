"""Sanitizing of untrusted text for a terminal.

Events are published unchanged, because browsers render any text safely. A terminal obeys control
characters and escape sequences, so every text passes through :func:`clean` before it is printed.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

from msgspec import Struct, structs

T = TypeVar("T", bound=Struct)

# Escape sequences of ECMA-48, with 7-bit and 8-bit introducers.
_ESCAPE_SEQUENCE: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, erasing
    # OSC, DCS, SOS, PM and APC: titles, links, the clipboard; up to BEL or ST
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-Z\\^-~]"
)


def clean(text: str) -> str:
    r"""Return the text on one line, without escape sequences and control characters.

    Characters that are not printable (C0 and C1 controls, line breaks, bidirectional overrides,
    zero-width characters) become spaces.

    >>> clean("\x1b[31mdone\x1b[0m\nINFO forged")
    'done INFO forged'
    """
    if text.isprintable():
        return text
    text = _ESCAPE_SEQUENCE.sub("", text)
    return "".join(character if character.isprintable() else " " for character in text)


def clean_lines(text: str) -> str:
    """Return the text with every line cleaned. Use it for jobcast's own multi-line texts."""
    return "\n".join(map(clean, text.split("\n")))


def clean_struct(struct: T) -> T:
    """Return the struct with its string fields cleaned. Strings inside lists or objects stay."""
    fields = ((name, getattr(struct, name)) for name in struct.__struct_fields__)
    return structs.replace(
        struct, **{name: clean(value) for name, value in fields if isinstance(value, str)}
    )
