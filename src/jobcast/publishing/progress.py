"""Progress of a job: percentages, nested stages, and bars that do not step back in a stage."""

from __future__ import annotations

import logging
from typing import Any, Final

from msgspec import UNSET, UnsetType

from jobcast.publishing.sanitize import interrupts, safe_text

Number = float | int | UnsetType

SEPARATOR: Final = " / "  # between the names of nested stages
LARGEST: Final = 1e300  # the largest number to publish; a hundred times as much is still finite
LARGEST_INT: Final = 2**63  # integers below are published unchanged; larger ones become floats

logger = logging.getLogger(__name__)


class Stage:
    """A part of a job, with a share of the whole. The outermost stage is the job itself.

    The stages at one level divide their parent's span by weight. ``of`` is the sum of the weights.
    Without it, the sum is that of the stages entered so far, and the bar steps back when another
    stage begins. The bar never steps back otherwise.
    """

    def __init__(self, name: str = "", span: tuple[float, float] = (0.0, 100.0)) -> None:
        self.name = name  # the full name, with those of the enclosing stages
        self.span = span  # the percentages of the whole job at which the stage begins and ends
        self._of: float | None = None
        self._finished = 0.0  # the sum of the weights of the inner stages entered so far

    def enter(self, name: str, weight: float = 1, of: float | None = None) -> Stage:
        """Begin a stage within this one.

        Raises:
            ValueError: ``weight`` or ``of`` is not a positive and finite number, or ``of`` is less
                than the sum of the weights so far.
        """
        entered = self._finished + _share("weight", weight)
        if of is not None:
            whole = _share("of", of)
            if whole < entered:
                raise ValueError(
                    f"of={of!r} is less than {entered}, the sum of the weights of the stages so far"
                )
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
    """The percentage that followers of a run have seen, which limits the next one."""

    def __init__(self) -> None:
        self._last = 0.0
        self._stage: Stage | None = None

    def percentage(
        self, reported: Number, current: Number, total: Number, stage: Stage
    ) -> float | None:
        """Return the percentage of the whole job to show, 0 to 100; None if it is unknown.

        The percentage never decreases within a stage.

        Args:
            reported: the percentage of the stage, which takes precedence over the next two.
            current: the number of finished items.
            total: the number of all items.
            stage: the current stage.
        """
        if reported is UNSET and current is not UNSET and total is not UNSET and total > 0:
            reported = 100.0 * current / total
        reported = reported if reported is UNSET else min(100.0, max(0.0, reported))
        low, high = stage.span
        if stage is not self._stage:
            self._stage, self._last = stage, low
        if reported is UNSET:
            # Within a stage at least the percentage at its beginning is known.
            return self._last if (low, high) != (0.0, 100.0) else None
        self._last = max(self._last, min(high, low + (high - low) * reported / 100.0))
        return self._last


def number(value: Any) -> Number:
    """Return ``value`` as a finite number that can be encoded; ``UNSET`` if it is not a number."""
    if type(value) is int and -LARGEST_INT < value < LARGEST_INT:
        return value
    try:
        as_float = float(value)
    except (TypeError, ValueError, OverflowError):
        return UNSET
    except Exception as exc:
        if interrupts(exc):
            raise
        # A foreign __float__ may raise any exception; it must not fail the task.
        logger.debug(
            "could not convert a %s to a number; it is ignored", type(value).__name__, exc_info=True
        )
        return UNSET
    return as_float if -LARGEST <= as_float <= LARGEST else UNSET


def _share(argument: str, value: Any) -> float:
    # A text that float() accepts is still a mistake of the caller.
    share = UNSET if isinstance(value, str | bytes) else number(value)
    if share is UNSET or share <= 0:
        raise ValueError(f"{argument}={value!r} is not a positive and finite number")
    return share
