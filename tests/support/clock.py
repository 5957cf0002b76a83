"""A clock that a test controls."""

from __future__ import annotations


class Clock:
    """Returns the time that the test has set, in seconds.

    >>> clock = Clock()
    >>> clock.now += 5
    >>> clock()
    1005.0
    """

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
