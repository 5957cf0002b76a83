"""Garbage collection is rare while the process serves, and is restored afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from jobcast.server.gc_tuning import THRESHOLDS, relaxed_gc

OWN = (701, 11, 9)  # thresholds of the application


@pytest.fixture(autouse=True)
def own_thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*OWN)
    yield
    gc.set_threshold(*before)


def test_thresholds_are_raised_inside_and_restored_afterwards() -> None:
    with relaxed_gc():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.isenabled()
    assert gc.get_threshold() == OWN


def test_thresholds_are_restored_after_an_exception() -> None:
    with pytest.raises(RuntimeError, match="the port is taken"), relaxed_gc():
        raise RuntimeError("the port is taken")
    assert gc.get_threshold() == OWN
    assert gc.get_freeze_count() == 0


def test_earlier_objects_are_frozen_until_exit() -> None:
    assert gc.get_freeze_count() == 0
    with relaxed_gc():
        assert gc.get_freeze_count() > 0
        here: list[object] = []
        here.append(here)
        # New objects are not frozen.
        assert any(item is here for item in gc.get_objects())
    assert gc.get_freeze_count() == 0


class Cycle:
    """An object in a reference cycle, which only the garbage collector frees."""

    freed = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        Cycle.freed += 1


def test_earlier_cycles_are_collected_on_entry_and_new_ones_inside() -> None:
    Cycle.freed = 0
    Cycle()
    with relaxed_gc():
        # Without the collection on entry, the frozen cycle would stay until the process exits.
        assert Cycle.freed == 1
        Cycle()
        gc.collect()
        assert Cycle.freed == 2
