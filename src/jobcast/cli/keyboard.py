"""Keys of a terminal, one at a time."""

from __future__ import annotations

import asyncio
import codecs
import os
import termios
import tty
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

MAX_WAITING: Final = 64  # keys; a program that reads slower drops further ones
ESCAPE_DELAY: Final = 0.05  # seconds after which a lone escape character is the Escape key

_SEQUENCES: Final[Mapping[str, str]] = {
    "[A": "up", "[B": "down", "OA": "up", "OB": "down", "[H": "home", "[F": "end", "OH": "home",
    "OF": "end", "[1~": "home", "[4~": "end", "[7~": "home", "[8~": "end", "[5~": "page up",
    "[6~": "page down",
}  # fmt: skip
_CONTROLS: Final[Mapping[str, str]] = {
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace",
}  # fmt: skip


class KeyParser:
    """A parser of the characters that a terminal sends."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        self._rest = ""  # the beginning of an escape sequence

    @property
    def awaits_more(self) -> bool:
        """Whether the last character was an escape character, or part of a sequence."""
        return bool(self._rest)

    def parse(self, data: bytes) -> list[str]:
        """Return the keys that are complete: names such as ``up``, and printable characters."""
        text, self._rest = self._rest + self._decoder.decode(data), ""
        keys = []
        while text:
            if text[0] == "\x1b":
                length = _sequence_length(text)
                if length is None:
                    self._rest = text
                    break
                keys.append(_SEQUENCES.get(text[1:length], "escape" if length == 1 else ""))
            else:
                length = 1
                keys.append(_CONTROLS.get(text[0], text[0] if text[0].isprintable() else ""))
            text = text[length:]
        return [key for key in keys if key]

    def finish(self) -> list[str]:
        """Return the Escape key if the terminal has sent only the escape character."""
        rest, self._rest = self._rest, ""
        return ["escape"] if rest == "\x1b" else []


def _sequence_length(text: str) -> int | None:
    """Return the length of the escape sequence at the beginning; None if it is incomplete."""
    if len(text) == 1:
        return None
    if text[1] not in "[O":
        return 1
    for index, character in enumerate(text[2:], 2):
        if "@" <= character <= "~":
            return index + 1
    return None


class Keyboard:
    """The keys of the terminal on standard input, which a ``with`` block reads one by one.

    Args:
        stream: the file descriptor of the terminal.
    """

    def __init__(self, stream: int = 0) -> None:
        self._stream = stream
        self._parser = KeyParser()
        self._keys: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._pause: asyncio.TimerHandle | None = None
        self._modes: list[Any] = []

    def __enter__(self) -> Self:
        self._modes = termios.tcgetattr(self._stream)
        tty.setcbreak(self._stream)
        asyncio.get_running_loop().add_reader(self._stream, self._read)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._stream)
        self._stop_waiting()
        termios.tcsetattr(self._stream, termios.TCSADRAIN, self._modes)

    async def key(self) -> str:
        """Return the next key: a name such as ``up``, or a character; ``q`` at the end of input."""
        return await self._keys.get()

    def _read(self) -> None:
        self._stop_waiting()
        data = os.read(self._stream, 1024)
        if not data:
            asyncio.get_running_loop().remove_reader(self._stream)
        self._put(self._parser.parse(data) if data else ["q"])
        if self._parser.awaits_more:
            self._pause = asyncio.get_running_loop().call_later(ESCAPE_DELAY, self._finish)

    def _finish(self) -> None:
        self._put(self._parser.finish())

    def _put(self, keys: list[str]) -> None:
        with suppress(asyncio.QueueFull):
            for key in keys:
                self._keys.put_nowait(key)

    def _stop_waiting(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
