"""The published forms of results of all types that a task may return."""

from __future__ import annotations

import json
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu.utils.json import dumps, register_type

from jobcast.publishing.sanitize import safe_result


def shown(result: Any) -> Any:
    return json.loads(msgspec.json.encode(safe_result(result, 100_000)))


def omitted(kind: str) -> dict[str, str]:
    return {"omitted": "unserializable", "type": kind}


class Moment(datetime):
    """A subclass with its own text, which is not used, as in pendulum and pandas."""

    def isoformat(self, *_: Any, **__: Any) -> str:
        return "some time"


class Day(date): ...


class Clock(time): ...


class Span(timedelta):
    @property
    def days(self) -> int:
        return 99


class Price(Decimal): ...


class Never(datetime):
    """A datetime with invalid attributes, such as pandas' NaT."""

    @property
    def year(self) -> Any:
        return float("nan")


class Reduces:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __json__(self) -> Any:
        return self.value


class Fails:
    def __json__(self) -> Any:
        raise RuntimeError("the database is gone")


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Row:
    name: str
    value: Any


class Item(msgspec.Struct):
    value: Any


class Registered:
    pass


register_type(Registered, "registered", lambda _: "by its encoder")

Point = namedtuple("Point", "x y")

ZONE = timezone(timedelta(hours=2))
WHEN = (2026, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Moment(*WHEN, tzinfo=UTC), "2026-01-02T03:04:05.000006Z"),
        (Moment(*WHEN, tzinfo=ZONE), "2026-01-02T03:04:05.000006+02:00"),
        (Moment(*WHEN), "2026-01-02T03:04:05.000006"),
        (Day(2026, 1, 2), "2026-01-02"),
        (Clock(3, 4), "03:04:00"),
        (Span(seconds=90), "PT90S"),
        (Price("1.50"), "1.50"),
        (Never(2026, 1, 1), omitted("Never")),
        (UUID(int=7), str(UUID(int=7))),
        (Reduces({"a": Day(2026, 1, 2)}), {"a": "2026-01-02"}),
        (Reduces(Reduces(object())), omitted("object")),
        (Fails(), omitted("Fails")),
        (Reduces, omitted("type")),
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (Point(1, object()), [1, omitted("object")]),
        (Row("a", {None: Day(2026, 1, 2)}), {"name": "a", "value": {"null": "2026-01-02"}}),
        (Item(object()), {"value": omitted("object")}),
        (Registered(), "by its encoder"),
        (10**30, 10**30),
        (Path("/x"), omitted("PosixPath")),
        ("a\udcff.txt", "a?.txt"),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.datetime64("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
        (np.array([1, 2]), omitted("ndarray")),
        (1 + 2j, omitted("complex")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["alone", "beside", "below"])
def test_value_is_converted_in_place(where: str, value: Any, expected: Any) -> None:
    around: Callable[[Any], Any] = {
        "alone": lambda inner: inner,
        "beside": lambda inner: {"rows": 3, "value": inner, "ok": [True]},
        "below": lambda inner: [[{"deep": OrderedDict(value=inner)}]],
    }[where]
    assert shown(around(value)) == around(expected)


@pytest.mark.parametrize("key", [None, True, False, 3, 0.5, "a", Level.HIGH, "\u00e4"])
def test_keys_equal_those_of_celerys_serializer(key: Any) -> None:
    expected = json.loads(dumps({key: 1}))
    assert shown({key: 1}) == expected
    assert shown({"in": [{key: Day(2026, 1, 2)}]})["in"][0].keys() == expected.keys()


@pytest.mark.parametrize(
    ("key", "expected"),
    [(np.int64(3), "3"), (Day(2026, 1, 2), "2026-01-02"), ((1, 2), "tuple"), ("\udcff", "?")],
)
def test_other_keys_become_texts(key: Any, expected: str) -> None:
    assert shown({key: object()}) == {expected: omitted("object")}


@pytest.mark.parametrize("container", [list, dict])
def test_recursive_value_is_described_at_the_recursion(container: type) -> None:
    circle: Any = container()
    if container is list:
        circle += [1, circle]
        assert shown(circle) == [1, omitted("list")]
    else:
        circle.update(a=1, b=circle)
        assert shown(circle) == {"a": 1, "b": omitted("dict")}


def test_repeated_value_is_converted_each_time() -> None:
    day = [Day(2026, 1, 2)]
    assert shown([day, day]) == [["2026-01-02"]] * 2


@pytest.mark.parametrize("depth", [150, 5000])
def test_deep_value_is_converted_or_described(depth: int) -> None:
    value: Any = object()
    for _ in range(depth):
        value = [value]
    result = shown(value)
    for _ in range(min(depth, 190)):
        result = result[0]
    assert "omitted" in str(result)


def test_time_limit_during_conversion_propagates() -> None:
    class Reached:
        def __json__(self) -> Any:
            raise SoftTimeLimitExceeded

    with pytest.raises(SoftTimeLimitExceeded):
        safe_result([Reached()], 1000)


def test_large_result_is_described_with_its_size() -> None:
    described = safe_result({None: "x" * 200}, 100)
    assert described == {"omitted": "too_large", "type": "dict", "bytes": 211, "limit": 100}
