"""Processes that a test can find again, whatever became of their parents."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support import wait_for

VARIABLE = "TEST_MARK"  # the demo drops what begins with JOBCAST_


class Mark:
    """A variable that a process hands down to all that it starts.

    Valkey writes its title over its environment: it is known by the directory that it works in.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.value = uuid.uuid4().hex
        self.env = {VARIABLE: self.value}

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_on(process)]

    def wait_until_gone(self) -> None:
        wait_for(lambda: not self.processes(), f"end of {self.processes()}")

    def _is_on(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(VARIABLE) == self.value or (
                process.name() == "valkey-server"
                and Path(process.cwd()).is_relative_to(self.directory)
            )
        except (psutil.Error, OSError):
            return False


@contextmanager
def process_mark(directory: Path) -> Iterator[Mark]:
    """A mark; what still carries it at the end is killed."""
    mark = Mark(directory)
    try:
        yield mark
    finally:
        for process in mark.processes():
            process.kill()
