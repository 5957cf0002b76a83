"""The rate-limited log of refusals."""

from __future__ import annotations

import logging
from typing import Final

from jobcast.realtime.connection.budget import TokenBucket

RATE: Final = 10.0  # log lines per second and process
BURST: Final = 100.0  # log lines
SHOWN: Final = 80  # characters to log of a client's text


class RefusalLog:
    """A rate-limited log of refusals, which counts the omitted lines.

    Args:
        logger: the logger to write to.
        bucket: the rate limit; ``RATE`` and ``BURST`` by default.
    """

    def __init__(self, logger: logging.Logger, bucket: TokenBucket | None = None) -> None:
        self._logger = logger
        self._bucket = bucket or TokenBucket(RATE, BURST)
        self._omitted = 0

    def info(self, message: str, *args: object) -> None:
        """Log a line, unless the rate limit is exceeded."""
        if not self._bucket.try_take():
            self._omitted += 1
            return
        if self._omitted:
            self._logger.info("omitted %d further lines about refusals", self._omitted)
            self._omitted = 0
        self._logger.info(message, *args)


def shown(text: object) -> str:
    """Return a client's text for a log, quoted, escaped and truncated to ``SHOWN`` characters.

    >>> shown("a\\nb")
    "'a\\\\nb'"
    """
    raw = text if isinstance(text, str) else str(text)
    return repr(raw if len(raw) <= SHOWN else f"{raw[:SHOWN]}...")
