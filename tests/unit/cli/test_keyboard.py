from __future__ import annotations

import asyncio
import os
import pty
import termios
from collections.abc import Iterator

import pytest

from jobcast.cli.keyboard import MAX_WAITING, Keyboard, KeyParser
from tests.support import TIMEOUT


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1bOB\x1b[5~\x1b[6~", ["up", "down", "page up", "page down"]),
        (b"\x1b[H\x1b[4~", ["home", "end"]),
        (b"\r\n\x7f", ["enter", "enter", "backspace"]),
        ("ü日".encode(), ["ü", "日"]),
        (b"\x1b[1;5Aj", ["j"]),  # an unknown sequence is no key
        (b"\x1bq", ["escape", "q"]),
        (b"\x00\x01\xff", []),
    ],
)
def test_bytes_of_a_terminal_are_keys(data: bytes, keys: list[str]) -> None:
    parser = KeyParser()
    assert parser.parse(data) == keys
    assert not parser.awaits_more


def test_sequence_in_two_parts_is_one_key() -> None:
    parser = KeyParser()
    for part in (b"\x1b", b"[", b"6"):
        assert parser.parse(part) == []
        assert parser.awaits_more
    assert parser.parse(b"~") == ["page down"]


def test_character_in_two_parts_is_one_key() -> None:
    parser = KeyParser()
    first, second = "ü".encode()[:1], "ü".encode()[1:]
    assert parser.parse(first) == []
    assert parser.parse(second) == ["ü"]


def test_lone_escape_character_is_a_key_when_nothing_follows() -> None:
    parser = KeyParser()
    assert parser.parse(b"\x1b") == []
    assert parser.finish() == ["escape"]
    assert parser.finish() == []


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    outer, inner = pty.openpty()
    yield outer, inner
    for descriptor in (outer, inner):
        os.close(descriptor)


async def test_keyboard_yields_keys_and_restores_the_terminal(terminal: tuple[int, int]) -> None:
    outer, inner = terminal
    modes = termios.tcgetattr(inner)
    with Keyboard(inner) as keyboard:
        assert termios.tcgetattr(inner) != modes
        os.write(outer, b"a\x1b")
        async with asyncio.timeout(TIMEOUT):
            assert [await keyboard.key(), await keyboard.key()] == ["a", "escape"]
    assert termios.tcgetattr(inner) == modes


async def test_keyboard_bounds_the_keys_that_wait(terminal: tuple[int, int]) -> None:
    outer, inner = terminal
    with Keyboard(inner) as keyboard:
        os.write(outer, b"x" * (MAX_WAITING + 100))
        async with asyncio.timeout(TIMEOUT):
            for _ in range(MAX_WAITING):
                assert await keyboard.key() == "x"
            os.write(outer, b"\r")
            while await keyboard.key() != "enter":
                pass
