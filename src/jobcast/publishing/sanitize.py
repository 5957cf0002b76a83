"""What may leave the worker: results, errors and texts, made safe to encode and to show."""

from __future__ import annotations

from typing import Any

import msgspec

from jobcast.publishing.plain import plain
from jobcast.publishing.texts import TEXT_LIMIT, interrupts, safe_text

__all__ = ["TEXT_LIMIT", "interrupts", "safe_result", "safe_text"]


def safe_result(result: Any, limit: int) -> Any:
    """``result`` encoded, with descriptions in the place of what does not encode.

    Args:
        result: what a task returned, or its ``public_result`` made of it.
        limit: the largest JSON text that is sent, in bytes; a larger result is described.
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
