"""Convert results to plain data: encode what Celery's JSON encodes, describe the rest in place."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Final

import msgspec
from kombu.utils.json import JSONEncoder
from msgspec import structs

from jobcast.publishing.texts import encodable, interrupts

DEEPEST: Final = 200  # levels of containers within containers

logger = logging.getLogger(__name__)

_encoder = msgspec.json.Encoder()
_celery_encoder = JSONEncoder()


def plain(value: Any) -> Any:
    """Return ``value`` as data that encodes as JSON.

    Instances of subclasses are converted to the base type, ``__json__`` methods are called, and
    keys become texts as in :mod:`json`. A part that cannot be encoded is replaced by a
    description.

    >>> plain({None: [object()]})
    {'null': [{'omitted': 'unserializable', 'type': 'object'}]}
    """
    return _Plain().of(value)


def describe(value: object) -> dict[str, str]:
    """Return the description of a value that cannot be encoded."""
    return {"omitted": "unserializable", "type": type(value).__name__}


class _Plain:
    """One traversal of a value, which may contain itself."""

    def __init__(self) -> None:
        self._parents: set[int] = set()  # the ids of the values that contain the current one

    def of(self, value: Any) -> Any:
        if value is None or type(value) in (bool, float):
            return value
        if isinstance(value, str):
            return encodable(value)
        if id(value) in self._parents or len(self._parents) >= DEEPEST:
            return describe(value)
        self._parents.add(id(value))
        try:
            return self._of_object(value)
        except Exception as exc:
            if interrupts(exc):
                raise
            # A conversion may run foreign code, such as that of a time zone.
            logger.debug(
                "could not convert a %s; a description is published instead",
                type(value).__name__, exc_info=True,
            )  # fmt: skip
            return describe(value)
        finally:
            self._parents.discard(id(value))

    def _of_object(self, value: Any) -> Any:
        if callable(reducer := getattr(value, "__json__", None)) and not isinstance(value, type):
            return self.of(reducer())
        for kind, convert in _CONVERSIONS:
            if isinstance(value, kind):
                return self._encoded(convert(value))
        if isinstance(value, Mapping):
            return {self._key(key): self.of(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.of(item) for item in value]
        if isinstance(value, msgspec.Struct):
            return self.of(structs.asdict(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = dataclasses.fields(value)
            return {field.name: self.of(getattr(value, field.name)) for field in fields}
        if type(value).__module__ == "numpy" and not getattr(value, "shape", ()):
            return self.of(value.item())
        if self._encodes(value):
            return self._encoded(value)
        shown = _celery_encoder.default(value)
        # Celery wraps some values with their type, for its own decoder.
        wrapped = isinstance(shown, dict) and shown.keys() == {"__type__", "__value__"}
        return self.of(shown["__value__"] if wrapped else shown)

    def _key(self, key: Any) -> str:
        match self.of(key):
            case str() as text:
                return text
            case None:
                return "null"
            case bool() as truth:
                return "true" if truth else "false"
            case int() | float() as number:
                return repr(number)
            case msgspec.Raw() as raw:
                text = msgspec.json.decode(raw)
                return text if isinstance(text, str) else repr(text)
        return type(key).__name__

    def _encodes(self, value: Any) -> bool:
        try:
            _encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return False
        return True

    def _encoded(self, value: Any) -> Any:
        """Return the encoded value, because some values can be encoded only once."""
        return value if type(value) in (bool, int, float) else msgspec.Raw(_encoder.encode(value))


def _int(value: Any) -> int | msgspec.Raw:
    number = int.__int__(value) if isinstance(value, int) else int(value)
    # json writes integers of any size; msgspec's encoder does not.
    return number if -(2**63) <= number < 2**64 else msgspec.Raw(str(number).encode())


def _datetime(value: datetime) -> datetime:
    clock = time(
        value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold
    )
    return datetime.combine(date(value.year, value.month, value.day), clock)


def _time(value: time) -> time:
    return time(
        value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold
    )


def _timedelta(value: timedelta) -> timedelta:
    # A subclass may redefine the attributes, as pendulum does with ``days``.
    days, seconds, microseconds = (
        getattr(timedelta, name).__get__(value) for name in ("days", "seconds", "microseconds")
    )
    return timedelta(days, seconds, microseconds)


#: Conversions to encodable values. The first type that a value is an instance of applies.
_CONVERSIONS: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (bool, bool),
    (int, _int),
    (float, float.__float__),
    (datetime, _datetime),
    (date, lambda value: date(value.year, value.month, value.day)),
    (time, _time),
    (timedelta, _timedelta),
    (Decimal, Decimal),
    (Integral, _int),
    (Real, float),
)
