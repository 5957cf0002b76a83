"""Where a job is: percentages, stages within stages, and the rule that a bar does not step back."""

from __future__ import annotations

import logging
from typing import Any, Final

from msgspec import UNSET, UnsetType

from jobcast.publishing.sanitize import interrupts, safe_text

Number = float | int | UnsetType

SEPARATOR: Final = " / "  # between the names of stages within stages
LARGEST: Final = 1e300  # of a number that is shown: a hundred times as much is still finite
LARGEST_INT: Final = 2**63  # below which an integer goes as it is: no client has to read more

logger = logging.getLogger(__name__)


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
            ValueError: a weight is not a positive and finite number, or ``of`` is none, or is less
                than what was entered.
        """
        entered = self._finished + _share("the weight of a stage", weight)
        if of is not None:
            whole = _share("the sum of weights, of,", of)
            if whole < entered:
                raise ValueError(f"of={of!r} is less than the weights of the stages so far")
            self._of = whole
        low, high = self.span
        whole = max(self._of or 0.0, entered)
        span = (
            min(high, low + (high - low) * (self._finished / whole)),
            min(high, low + (high - low) * (entered / whole)),
        )
        self._finished = entered
        name = safe_text(name)
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
        said = said if said is UNSET else min(100.0, max(0.0, said))
        low, high = stage.span
        if stage is not self._stage:
            self._stage, self._last = stage, low
        if said is UNSET:
            # Of a part it is known at least where it begins.
            return self._last if (low, high) != (0.0, 100.0) else None
        self._last = max(self._last, min(high, low + (high - low) * said / 100.0))
        return self._last


def number(value: Any) -> Number:
    """``value`` as a finite number that encodes and can be reckoned with; unset if it is none."""
    if type(value) is int and -LARGEST_INT < value < LARGEST_INT:
        return value
    try:
        as_float = float(value)
    except (TypeError, ValueError, OverflowError):
        return UNSET
    except Exception as exc:
        if interrupts(exc):
            raise
        # Any code may stand behind it, and a number that fails may not fail the task.
        logger.debug("a %s is no number", type(value).__name__, exc_info=True)
        return UNSET
    return as_float if -LARGEST <= as_float <= LARGEST else UNSET


def _share(what: str, value: Any) -> float:
    # A text that reads as a number is a mistake here, where it can be told.
    share = UNSET if isinstance(value, str | bytes) else number(value)
    if share is UNSET or share <= 0:
        raise ValueError(f"{what} is a positive and finite number, not {value!r}")
    return share
