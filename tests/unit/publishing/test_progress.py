from __future__ import annotations

import math
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from jobcast.publishing.progress import Shown, Stage, number

anything = st.one_of(
    st.floats(), st.integers(), st.none(), st.text(max_size=3), st.decimals(), st.booleans()
)


@given(st.lists(anything))
def test_percentage_is_within_bounds_and_never_decreases(
    reported: list[Any],
) -> None:
    shown, job = Shown(), Stage()
    values = [shown.percentage(number(value), UNSET, UNSET, job) for value in reported]
    known = [value for value in values if value is not None]
    assert all(0 <= value <= 100 for value in known)
    assert known == sorted(known)


@given(anything, anything)
def test_any_current_and_total_give_a_valid_percentage(current: Any, total: Any) -> None:
    value = Shown().percentage(UNSET, number(current), number(total), Stage())
    assert value is None or 0 <= value <= 100


def test_values_that_are_not_numbers_become_unset() -> None:
    assert [number(v) for v in (1, 2.5, Decimal("0.5"), True, "7")] == [1, 2.5, 0.5, 1.0, 7.0]
    for strange in (None, math.nan, math.inf, "x", [], object(), Decimal("NaN")):
        assert number(strange) is UNSET


def test_percentage_is_computed_from_current_and_total() -> None:
    shown, job = Shown(), Stage()
    assert shown.percentage(UNSET, 1, 4, job) == 25
    assert shown.percentage(UNSET, 5, 4, job) == 100
    assert Shown().percentage(UNSET, 3, 0, job) is None
    assert Shown().percentage(UNSET, 3, UNSET, job) is None


def test_stages_with_known_sum_divide_the_whole() -> None:
    job = Stage()
    first = job.enter("read", 3, of=4)
    second = job.enter("write", 1)
    assert (first.span, second.span) == ((0, 75), (75, 100))
    assert (first.name, second.name) == ("read", "write")


def test_stages_without_sum_divide_by_the_weights_so_far() -> None:
    job = Stage()
    assert job.enter("a", 3).span == (0, 100)
    assert job.enter("b", 1).span == (75, 100)
    assert job.enter("c", 4).span == (50, 100)


def test_nested_stages_divide_their_parent() -> None:
    job = Stage()
    job.enter("a", of=2)
    outer = job.enter("b")
    inner = outer.enter("x", of=2)
    assert inner.name == "b / x"
    assert inner.span == (50, 75)
    assert outer.enter("y").span == (75, 100)


def test_percentage_decreases_only_with_a_new_stage() -> None:
    shown, job = Shown(), Stage()
    first = job.enter("a")
    assert shown.percentage(100, UNSET, UNSET, first) == 100
    second = job.enter("b")
    assert shown.percentage(0, UNSET, UNSET, second) == 50
    assert shown.percentage(60, UNSET, UNSET, second) == 80
    assert shown.percentage(10, UNSET, UNSET, second) == 80


@pytest.mark.parametrize(
    ("weight", "of", "message"),
    [(0, None, "positive"), (-1, None, "positive"), (math.nan, None, "positive"), (3, 2, "less")],
)
def test_invalid_weights_are_refused(weight: float, of: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stage().enter("x", weight, of)


@given(st.lists(st.floats(min_value=0.01, max_value=100), min_size=1, max_size=8))
def test_planned_stages_are_contiguous(weights: list[float]) -> None:
    job = Stage()
    spans = [job.enter("s", weight, of=sum(weights) * 1.001).span for weight in weights]
    for (_, end), (begin, _) in pairwise(spans):
        assert math.isclose(end, begin)
    assert spans[0][0] == 0
    assert spans[-1][1] <= 100


class Tensor:
    """A value whose ``__float__`` raises an unusual error."""

    def __float__(self) -> float:
        raise RuntimeError("a tensor of two elements")


@pytest.mark.parametrize(
    "strange", [Tensor(), 10**400, -(10**400), 1.7e308], ids=["tensor", "huge", "low", "large"]
)
def test_unusable_numbers_become_unset(strange: Any) -> None:
    assert number(strange) is UNSET


def test_time_limit_during_number_conversion_propagates() -> None:
    class Slow:
        def __float__(self) -> float:
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        number(Slow())


def test_very_large_and_small_numbers_have_a_percentage() -> None:
    job = Stage()
    assert number(10**100) == 1e100
    assert Shown().percentage(UNSET, number(10**100), number(2 * 10**100), job) == 50
    assert Shown().percentage(UNSET, 1e300, 5e-324, job) == 100
    assert Shown().percentage(1e300, UNSET, UNSET, job) == 100


@pytest.mark.parametrize(
    "weight", ["3", b"3", None, math.inf, [], 10**400, Tensor()],
    ids=["text", "bytes", "None", "inf", "list", "huge", "tensor"],
)  # fmt: skip
@pytest.mark.parametrize("which", ["weight", "of"])
def test_weight_must_be_a_positive_and_finite_number(weight: Any, which: str) -> None:
    arguments = {"weight": 1, "of": None, which: weight}
    if arguments == {"weight": 1, "of": None}:
        return  # ``of`` may be None
    with pytest.raises(ValueError, match=f"{which}=.* is not a positive and finite number"):
        Stage().enter("x", **arguments)


def test_extreme_weights_are_accepted() -> None:
    job = Stage()
    assert job.enter("a", 5e-324).span == (0, 100)
    assert job.enter("b", 1e300).span == (0, 100)
    assert job.enter("c", True).span == (100, 100)
