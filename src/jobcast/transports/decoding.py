"""Decodes messages of exchanges and channels to which other software may write too."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


def decoded(decode: Callable[[bytes | str], T], body: bytes | str, place: str) -> T | None:
    """Decode a message. If that raises ValueError, log it and return None.

    Args:
        decode: parses the body.
        body: the message.
        place: the name of the exchange, queue or channel, for the log line.
    """
    try:
        return decode(body)
    except ValueError as exc:
        logger.warning("ignored a message on %s that is not jobcast's: %s", place, exc)
        return None
