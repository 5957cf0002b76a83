"""The log of refusals, at a bounded rate."""

from __future__ import annotations

import logging
from typing import Final

from jobcast.realtime.connection.budget import TokenBucket

RATE: Final = 10.0  # lines a second of one process
BURST: Final = 100.0  # lines
SHOWN: Final = 80  # characters of a client's text


class RefusalLog:
    """Logs refusals at a bounded rate, and counts the lines that it leaves out.

    Args:
        logger: the logger that the lines go to.
        bucket: the rate; ``RATE`` and ``BURST`` by default.
    """

    def __init__(self, logger: logging.Logger, bucket: TokenBucket | None = None) -> None:
        self._logger = logger
        self._bucket = bucket or TokenBucket(RATE, BURST)
        self._omitted = 0

    def info(self, message: str, *args: object) -> None:
        """Log a line, unless there are too many."""
        if not self._bucket.try_take():
            self._omitted += 1
            return
        if self._omitted:
            self._logger.info("%d more lines about refusals were left out", self._omitted)
            self._omitted = 0
        self._logger.info(message, *args)


def shown(text: object) -> str:
    """Return a client's text for a log: quoted, escaped and cut to ``SHOWN`` characters.

    >>> shown("a\\nb")
    "'a\\\\nb'"
    """
    raw = text if isinstance(text, str) else str(text)
    return repr(raw if len(raw) <= SHOWN else f"{raw[:SHOWN]}...")
