"""What may leave the worker: results, errors and texts, made safe to encode and to show."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import msgspec

logger = logging.getLogger(__name__)

TEXT_LIMIT: Final = 8192  # characters of a log line or a message

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)")
_encoder = msgspec.json.Encoder()


def safe_text(value: object, limit: int = TEXT_LIMIT) -> str:
    """``value`` as a text that can be sent: bounded, encodable, with passwords in URLs masked."""
    text = value if isinstance(value, str) else _text(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return _CREDENTIALS.sub("***", text) if "://" in text else text


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
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
    try:
        encoded = _encoder.encode(result)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {"omitted": "unserializable", "type": kind}
    if len(encoded) > limit:
        return {"omitted": "too_large", "type": kind, "bytes": len(encoded), "limit": limit}
    return msgspec.Raw(encoded)
