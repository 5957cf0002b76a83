"""Kills the processes that a test run has started, if the run itself is killed.

A process of pytest-xdist gets SIGKILL when the user interrupts the run, and then cleans nothing up.
The servers of the tests have sessions of their own, so the terminal's Ctrl-C does not reach them.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class Reaper:
    """A process that outlives this one, and then kills the process groups that are left.

    Its standard input is a pipe from this process, which the kernel closes.
    """

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            # Without the site module it starts quickly, and coverage does not measure it.
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.close)

    def add(self, group: int) -> None:
        """Kill a process group when this process has ended."""
        self._write(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Forget a process group that has ended."""
        self._write(f"-{group}\n")

    def close(self) -> None:
        """Kill the groups that are left, and wait for the end of the reaper."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait()

    def _write(self, line: str) -> None:
        assert self._popen.stdin is not None
        os.write(self._popen.stdin.fileno(), line.encode())


_lock = threading.Lock()
_reapers: dict[int, Reaper] = {}  # by the pid that started it: a fork has one of its own


def reaper() -> Reaper:
    """Return the reaper of this process."""
    with _lock:
        if os.getpid() not in _reapers:
            _reapers[os.getpid()] = Reaper()
        return _reapers[os.getpid()]


def kill_when_closed(lines: Iterable[str]) -> None:
    """Kill the process groups that were added and not removed, at the end of the input."""
    groups: set[int] = set()
    for line in lines:
        change = groups.add if line[0] == "+" else groups.discard
        change(int(line[1:]))
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    kill_when_closed(sys.stdin)
