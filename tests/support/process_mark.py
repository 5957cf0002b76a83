"""Marks processes by an environment variable, so that a test finds orphans too."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support import wait_for

VARIABLE = "TEST_MARK"  # the demo drops variables that begin with JOBCAST_


class Mark:
    """An environment variable that child processes inherit.

    Valkey overwrites its environment with its title, so its working directory identifies it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.value = uuid.uuid4().hex
        self.env = {VARIABLE: self.value}

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._carries_mark(process)]

    def wait_until_gone(self) -> None:
        wait_for(lambda: not self.processes(), f"end of {self.processes()}")

    def _carries_mark(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(VARIABLE) == self.value or (
                process.name() == "valkey-server"
                and Path(process.cwd()).is_relative_to(self.directory)
            )
        except (psutil.Error, OSError):
            return False


@contextmanager
def process_mark(directory: Path) -> Iterator[Mark]:
    """Yield a mark, and kill the processes that still carry it at the end."""
    mark = Mark(directory)
    try:
        yield mark
    finally:
        for process in mark.processes():
            process.kill()
