"""Check the attributes of a task's class that say how its jobs are cancelled."""

from __future__ import annotations

import math
from typing import Any


def check_attributes(cls: Any) -> None:
    """Check ``cancellable`` and ``cancel_grace`` when a class is created.

    Raises:
        TypeError: an attribute has a wrong type.
        ValueError: ``cancel_grace`` is negative or not finite.
    """
    name = getattr(cls, "name", None) or cls.__qualname__
    if not isinstance(cls.cancellable, bool):
        raise TypeError(f"task {name}: cancellable should be a bool, not {cls.cancellable!r}")
    grace = cls.cancel_grace
    if grace is None:
        return
    if isinstance(grace, bool) or not isinstance(grace, int | float):
        raise TypeError(
            f"task {name}: cancel_grace should be a number of seconds, or None for a run that is"
            f" never terminated, not {grace!r}"
        )
    if not (math.isfinite(grace) and grace >= 0):
        raise ValueError(
            f"task {name}: cancel_grace should be 0 or more seconds, or None for a run that is"
            f" never terminated, not {grace!r}"
        )
