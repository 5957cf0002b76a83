"""Garbage collection is rare while the process serves, and as before when it has served."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from jobcast.server.gc_tuning import THRESHOLDS, relaxed_gc

OWN = (701, 11, 9)  # what an application may have set


@pytest.fixture(autouse=True)
def own_thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*OWN)
    yield
    gc.set_threshold(*before)


def test_collections_are_rare_inside_and_the_thresholds_are_restored() -> None:
    with relaxed_gc():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.isenabled()
    assert gc.get_threshold() == OWN


def test_the_thresholds_are_restored_when_serving_fails() -> None:
    with pytest.raises(RuntimeError, match="the port is taken"), relaxed_gc():
        raise RuntimeError("the port is taken")
    assert gc.get_threshold() == OWN
    assert gc.get_freeze_count() == 0


def test_what_was_there_before_is_not_looked_at_until_the_end() -> None:
    assert gc.get_freeze_count() == 0
    with relaxed_gc():
        assert gc.get_freeze_count() > 0
        here: list[object] = []
        here.append(here)
        # What is made meanwhile is still found.
        assert any(thing is here for thing in gc.get_objects())
    assert gc.get_freeze_count() == 0


class Knot:
    """Is in a cycle, which only the collector undoes."""

    undone = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Knot.undone += 1


def test_cycles_of_before_are_gone_first_and_those_of_meanwhile_are_found() -> None:
    Knot.undone = 0
    Knot()
    with relaxed_gc():
        # It would otherwise be kept for as long as the process serves.
        assert Knot.undone == 1
        Knot()
        gc.collect()
        assert Knot.undone == 2
