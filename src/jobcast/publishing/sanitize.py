"""Sanitize results, errors and texts, so that they can be encoded and shown to followers."""

from __future__ import annotations

from typing import Any

import msgspec

from jobcast.publishing.plain import plain
from jobcast.publishing.texts import TEXT_LIMIT, interrupts, safe_text

__all__ = ["TEXT_LIMIT", "interrupts", "safe_result", "safe_text"]


def safe_result(result: Any, limit: int) -> Any:
    """Return ``result`` encoded as JSON; describe the parts that cannot be encoded.

    Args:
        result: the return value of a task, or of its ``public_result`` hook.
        limit: the largest JSON text to send, in bytes. A larger result is replaced by a
            description.
    """
    try:
        encoded = _encoder.encode(result)
    except Exception as exc:
        if interrupts(exc):
            raise
        encoded = _encoder.encode(plain(result))
    if len(encoded) > limit:
        kind = type(result).__name__
        return {"omitted": "too_large", "type": kind, "bytes": len(encoded), "limit": limit}
    return msgspec.Raw(encoded)


_encoder = msgspec.json.Encoder()
