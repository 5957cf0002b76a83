"""The look of jobs in a terminal: the symbols and styles of states, and texts for durations."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from rich.console import Console
from rich.text import Text

STATE_STYLES: Final = {
    "pending": "dim", "queued": "dim", "started": "cyan", "retrying": "yellow", "stalled": "yellow",
    "cancelling": "cyan", "complete": "green", "error": "red", "cancelled": "dim",
}  # fmt: skip
SYMBOLS: Final = {
    "pending": "·", "queued": "·", "started": "▸", "retrying": "↻", "stalled": "⏸",
    "cancelling": "▹", "complete": "✔", "error": "✖", "cancelled": "■",
}  # fmt: skip
# Of a state or level that this version does not know.
UNKNOWN_STYLE: Final = "default"
UNKNOWN_SYMBOL: Final = "•"

_AGES: Final = ((86400, "d"), (3600, "h"), (60, "m"))  # units in seconds, the longest first


class Terminal(Console):
    """A console that raises BrokenPipeError, as ``print`` does, instead of exiting."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def style_of(state: str) -> str:
    """Return the style of a state."""
    return STATE_STYLES.get(state, UNKNOWN_STYLE)


def symbol_of(state: str) -> Text:
    """Return the symbol of a state in its style."""
    return Text(SYMBOLS.get(state, UNKNOWN_SYMBOL), style=style_of(state))


def duration(time: timedelta) -> str:
    """Return a duration as ``0:07``, ``12:30`` or ``1:05:00``."""
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def age(time: timedelta) -> str:
    """Return a duration in its largest unit: ``7s``, ``12m``, ``3h`` or ``5d``."""
    seconds = max(0, int(time.total_seconds()))
    for unit, letter in _AGES:
        if seconds >= unit:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
