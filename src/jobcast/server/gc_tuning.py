"""Garbage collection for a process that holds many connections."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Each connection is some hundred objects that stay. With Python's thresholds a fifth of the CPU
# time of a storm of connections goes into looking through them again and again.
THRESHOLDS: Final = (50_000, 50, 100)


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Look for cycles seldom, and never in what was there before."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
