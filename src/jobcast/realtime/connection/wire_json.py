"""The JSON that python-socketio reads and writes with, by msgspec.

Beside its speed: what is nested too deep is wrong JSON and no more. The standard library raises
RecursionError for it, which python-engineio does not expect, so that anybody could fill the log.
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
