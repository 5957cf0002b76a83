"""JSON encoding and decoding for python-socketio, with msgspec.

msgspec is faster than the standard library. Input that is nested too deeply is invalid JSON here.
The standard library raises RecursionError for it, which python-engineio does not handle, so that
any client could fill the log with tracebacks.
"""

from __future__ import annotations

from typing import Any

import msgspec


def dumps(value: Any, **_: Any) -> str:
    return msgspec.json.encode(value).decode()


def loads(text: str | bytes, **_: Any) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from None
