"""Exceptions that cannot be pickled, so that Celery replaces them."""

from __future__ import annotations


class TwoArgs(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class NoSuchRow(LookupError):
    """An exception that Celery replaces by its base class LookupError."""

    def __init__(self, table: str, row: int) -> None:
        super().__init__(f"{table}/{row}")
        self.row = row
