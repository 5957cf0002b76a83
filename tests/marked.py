"""Processes that a test can find again, whatever became of their parents."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.support import wait_for

VARIABLE = "JOBCAST_TEST_MARK"


class Mark:
    """A variable that a process hands down to all that it starts."""

    def __init__(self) -> None:
        self.value = uuid.uuid4().hex
        self.env = {VARIABLE: self.value}

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_on(process)]

    def wait_until_gone(self) -> None:
        wait_for(lambda: not self.processes(), f"end of {self.processes()}")

    def _is_on(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(VARIABLE) == self.value
        except (psutil.Error, OSError):
            return False


@contextmanager
def marked() -> Iterator[Mark]:
    """A mark; what still carries it at the end is killed."""
    mark = Mark()
    try:
        yield mark
    finally:
        for process in mark.processes():
            process.kill()
