"""Make texts safe to publish: bounded, encodable, with passwords masked."""

from __future__ import annotations

import logging
import sys
from typing import Final

from jobcast.masking import mask

logger = logging.getLogger(__name__)

TEXT_LIMIT: Final = 8192  # characters of a log line or a message


def interrupts(exc: BaseException) -> bool:
    """Return whether a signal handler may have raised ``exc`` to end a task.

    billiard's pools enforce Celery's soft time limits. If billiard is not imported, there is no
    such limit.
    """
    billiard = sys.modules.get("billiard.exceptions")
    soft_limit = billiard is not None and isinstance(exc, billiard.SoftTimeLimitExceeded)
    return soft_limit or not isinstance(exc, Exception)


def safe_text(value: object, limit: int = TEXT_LIMIT) -> str:
    """Return ``value`` as a text that can be published: bounded, encodable, with secrets masked.

    The result is a plain ``str``. Subclasses, such as those of numpy, Django and Jinja, override
    methods and cannot be encoded.
    """
    text = str.__str__(value if isinstance(value, str) else _text(value))
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return mask(encodable(text))


def encodable(value: str) -> str:
    """Return ``value`` as a plain ``str`` without lone surrogates, which file names may have."""
    text = str.__str__(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as exc:
        if interrupts(exc):
            raise
        # A foreign __str__ may raise any exception; it must not fail the task.
        logger.exception(
            "could not convert a %s to a text; its type name is published instead",
            type(value).__name__,
        )
        return type(value).__name__
