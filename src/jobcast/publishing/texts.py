"""Texts that may leave the worker: bounded, encodable, without passwords."""

from __future__ import annotations

import logging
import sys
from typing import Final

from jobcast.masking import mask

logger = logging.getLogger(__name__)

TEXT_LIMIT: Final = 8192  # characters of a log line or a message


def interrupts(exc: BaseException) -> bool:
    """Return whether a signal handler may have raised ``exc`` to end a task.

    Without billiard, whose pools enforce Celery's soft time limits, there is no such limit.
    """
    billiard = sys.modules.get("billiard.exceptions")
    soft_limit = billiard is not None and isinstance(exc, billiard.SoftTimeLimitExceeded)
    return soft_limit or not isinstance(exc, Exception)


def safe_text(value: object, limit: int = TEXT_LIMIT) -> str:
    """``value`` as a text that can be sent: bounded, encodable, with secrets masked.

    It is a plain ``str``, also if ``value`` is an instance of a subclass, such as those of numpy,
    Django and Jinja: their methods do other things, and they do not encode.
    """
    text = str.__str__(value if isinstance(value, str) else _text(value))
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return mask(encodable(text))


def encodable(value: str) -> str:
    """``value`` as a plain ``str`` without lone surrogates, as names of files may have them."""
    text = str.__str__(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as exc:
        if interrupts(exc):
            raise
        # Any code may stand behind it, and a text that fails may not fail the task.
        logger.exception("the text of a %s cannot be had", type(value).__name__)
        return type(value).__name__
