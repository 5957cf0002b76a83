"""What may leave the worker: results, errors and texts, made safe to encode and to show."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
from celery.exceptions import SoftTimeLimitExceeded

from jobcast.masking import mask

logger = logging.getLogger(__name__)

TEXT_LIMIT: Final = 8192  # characters of a log line or a message


def interrupts(exc: BaseException) -> bool:
    """Whether an exception may come from outside of the code that it is raised in, to end a task:
    that of a signal's handler does."""
    return isinstance(exc, SoftTimeLimitExceeded) or not isinstance(exc, Exception)


def safe_text(value: object, limit: int = TEXT_LIMIT) -> str:
    """``value`` as a text that can be sent: bounded, encodable, with secrets masked.

    It is a plain ``str``, also where ``value`` is of a subclass, as numpy, Django and Jinja have
    them: their methods do other things, and they do not encode.
    """
    text = str.__str__(value if isinstance(value, str) else _text(value))
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return mask(text)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as exc:
        if interrupts(exc):
            raise
        # Any code may stand behind it, and a text that fails may not fail the task.
        logger.exception("the text of a %s cannot be had", type(value).__name__)
        return type(value).__name__


def safe_result(result: Any, limit: int) -> Any:
    """``result`` encoded, or a description of it where it does not encode or is too large.

    Args:
        result: what a task returned, or its ``public_result`` made of it.
        limit: the largest JSON text that is sent, in bytes.
    """
    kind = type(result).__name__
    described = {"omitted": "unserializable", "type": kind}
    try:
        encoded = _encoder.encode(result)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return described
    except Exception as exc:
        if interrupts(exc):
            raise
        # Any code may stand behind a value, a time zone's for one.
        logger.debug("a result of type %s is not shown", kind, exc_info=True)
        return described
    if len(encoded) > limit:
        return {"omitted": "too_large", "type": kind, "bytes": len(encoded), "limit": limit}
    return msgspec.Raw(encoded)


def _plain(value: Any) -> Any:
    """What does not encode by itself, as the plain value that it is one of."""
    # By the plain type's own method: that of a subclass may do anything.
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
    raise TypeError(f"a {type(value).__name__} does not encode")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
