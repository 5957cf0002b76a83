"""A clock that a test sets."""

from __future__ import annotations


class Clock:
    """Gives the seconds that a test says it is.

    >>> clock = Clock()
    >>> clock.now += 5
    >>> clock()
    1005.0
    """

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
