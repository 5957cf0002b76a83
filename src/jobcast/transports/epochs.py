"""Epochs of records in memory: of two epochs of one process, the later one is greater as a text."""

from __future__ import annotations

import secrets
import time
from itertools import count
from typing import Final

_numbers: Final = count(time.time_ns() // 1000)


def new_epoch() -> str:
    """Return an epoch that no other record has, in any process."""
    return f"{next(_numbers):014x}{secrets.token_hex(4)}"
