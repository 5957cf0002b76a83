"""Where a job is: percentages, stages within stages, and the rule that a bar does not step back."""

from __future__ import annotations

import math
from typing import Any, Final

from msgspec import UNSET, UnsetType

Number = float | int | UnsetType

SEPARATOR: Final = " / "  # between the names of stages within stages


class Stage:
    """A part of a job, with a share of the whole. The job itself is the outermost one.

    The stages at one level share what is above them by weight. Where the sum of the weights is
    not known ahead (``of``), it is that of the stages entered so far; the bar then steps back
    when another one begins, which it may do nowhere else.
    """

    def __init__(self, name: str = "", span: tuple[float, float] = (0.0, 100.0)) -> None:
        self.name = name  # with those of the stages around it
        self.span = span  # the percentages of the whole job at which it begins and ends
        self._of: float | None = None
        self._finished = 0.0  # the weights of the stages within that are over

    def enter(self, name: str, weight: float = 1, of: float | None = None) -> Stage:
        """Begin a stage within this one.

        Raises:
            ValueError: a weight is not positive, or ``of`` is less than what was entered.
        """
        if not weight > 0:
            raise ValueError(f"the weight of a stage is positive, not {weight!r}")
        entered = self._finished + weight
        if of is not None:
            if not of >= entered:
                raise ValueError(f"of={of!r} is less than the weights of the stages so far")
            self._of = of
        low, high = self.span
        unit = (high - low) / max(self._of or 0.0, entered)
        span = low + unit * self._finished, low + unit * entered
        self._finished = entered
        return Stage(f"{self.name}{SEPARATOR}{name}" if self.name else name, span)


class Shown:
    """What followers have seen of a run's percentage, and so may see next."""

    def __init__(self) -> None:
        self._last = 0.0
        self._stage: Stage | None = None

    def percentage(
        self, said: Number, current: Number, total: Number, stage: Stage
    ) -> float | None:
        """The percentage of the whole to show, 0 to 100; None if it is not known.

        Within a stage it never goes back; what is no number counts as not said.
        """
        if said is UNSET and current is not UNSET and total is not UNSET and total > 0:
            said = 100.0 * current / total
        low, high = stage.span
        if stage is not self._stage:
            self._stage, self._last = stage, low
        if said is UNSET:
            # Of a part it is known at least where it begins.
            return self._last if (low, high) != (0.0, 100.0) else None
        self._last = max(self._last, min(high, low + (high - low) * said / 100.0))
        return self._last


def number(value: Any) -> Number:
    """``value`` as a finite number that encodes; unset if it is none."""
    if type(value) is int:
        return value
    try:
        as_float = float(value)
    except (TypeError, ValueError, OverflowError):
        return UNSET
    return as_float if math.isfinite(as_float) else UNSET
