"""The messages of an event stream (WHATWG HTML, section 9.2), parsed from its bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct


class StreamMessage(Struct, frozen=True):
    """A message of a stream. ``id`` is the position after it; empty if the message has none."""

    name: str
    data: str
    id: str


def read_messages(chunks: Iterable[bytes]) -> Iterator[StreamMessage]:
    """Yield the complete messages of a stream of one-line data, as a jobcast server sends it."""
    fields: dict[str, str] = {}
    for line in _lines(chunks):
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                yield StreamMessage(fields.get("event", ""), fields["data"], fields.get("id", ""))
            fields = {}


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the complete lines of a stream.

    Only line feeds separate lines: JSON may contain other line separators of Unicode.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
