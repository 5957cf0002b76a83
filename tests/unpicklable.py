"""Exceptions that cannot be pickled, so that Celery passes on others."""

from __future__ import annotations


class TwoArgs(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class NoSuchRow(LookupError):
    """Celery makes a LookupError of it."""

    def __init__(self, table: str, row: int) -> None:
        super().__init__(f"{table}/{row}")
        self.row = row
