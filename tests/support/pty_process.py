"""A program in a pseudo-terminal of a chosen size."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.support import TIMEOUT, wait_for

_HOME = "\x1b[H"  # begins a frame of a full-screen program
_CSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class PtyProcess:
    """A running program and the terminal that it uses.

    Args:
        argv: the command.
        env: variables in addition to those of this process.
        width: the width of the terminal, in characters.
        height: the height of the terminal, in lines.
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], width: int = 110, height: int = 24
    ) -> None:
        self._terminal, self._inner = pty.openpty()
        self.resize(width, height)
        variables = {**os.environ, "TERM": "xterm-256color", **env}
        for name in ("COLUMNS", "LINES"):  # they take precedence over the terminal's size
            variables.pop(name, None)
        self.modes = termios.tcgetattr(self._inner)
        self.popen = subprocess.Popen(
            ["setsid", "--ctty", *argv], env=variables, stdin=self._inner, stdout=self._inner,
            stderr=self._inner,
        )  # fmt: skip
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.popen.kill()
        self.popen.wait()
        os.close(self._inner)
        self._reader.join()
        os.close(self._terminal)

    @property
    def output(self) -> str:
        """Everything that the program has written."""
        return self._written.decode(errors="replace").replace("\r\n", "\n")

    @property
    def text(self) -> str:
        """The output without control sequences."""
        return _CSI.sub("", self.output)

    @property
    def frame(self) -> str:
        """The latest complete frame of a full-screen program, without control sequences."""
        frames = self.output.split(_HOME)
        return _CSI.sub("", frames[-2] if len(frames) > 1 else "")

    def send(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def resize(self, width: int, height: int) -> None:
        size = struct.pack("HHHH", height, width, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def expect(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition; fail with the latest frame."""
        try:
            wait_for(condition, what)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.frame}\n{self.text[-2000:]}") from None

    def wait(self) -> int:
        """Wait for the exit code."""
        return self.popen.wait(TIMEOUT)

    def modes_are_restored(self) -> bool:
        """Return whether the terminal has the modes that it had at the start."""
        return termios.tcgetattr(self._inner) == self.modes

    def _read(self) -> None:
        # The read fails once no process has the terminal open.
        with suppress(OSError):
            while data := os.read(self._terminal, 65536):
                self._written += data
