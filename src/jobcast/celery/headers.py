"""jobcast's headers of a task's message."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import structs

from jobcast.events import now
from jobcast.publishing.identity import owner_of
from jobcast.transports import Origin, Run
from jobcast.transports.runs import draw

OWNER_HEADER: Final = "jobcast_owner"
SENDING_HEADER: Final = "jobcast_sending"
AFTER_HEADER: Final = "jobcast_after"
STANDS_IN_HEADER: Final = "jobcast_stands_in"  # name of the task that this one replaces
DELIVERY_HEADER: Final = "jobcast_delivery"  # set by the worker that takes the message

#: All of jobcast's headers. They are at the top level of a message's headers.
HEADERS: Final = (
    OWNER_HEADER, SENDING_HEADER, AFTER_HEADER, STANDS_IN_HEADER, DELIVERY_HEADER,
)  # fmt: skip
#: The headers that a retry copies.
KEPT_BY_RETRIES: Final = (OWNER_HEADER, SENDING_HEADER, STANDS_IN_HEADER)

_NAME: Final = re.compile(r"[0-9a-z]{12}", re.ASCII)  # as ``draw`` makes them
_EVENT_REFERENCE: Final = re.compile(r"\w+ \d{1,15}( \d{1,12})?", re.ASCII)

logger = logging.getLogger(__name__)


def headers_of(request: Any) -> dict[str, Any]:
    """Return jobcast's headers of a run's message.

    The top level of the message's headers become attributes of the request. ``request.headers`` is
    a nested dictionary named ``headers``, which tracers such as Sentry's add.

    Args:
        request: the ``celery.app.task.Context`` of the run.
    """
    inner = request.headers
    found = {**(inner if isinstance(inner, Mapping) else {}), **vars(request)}
    return {name: found[name] for name in HEADERS if found.get(name) is not None}


def origin_of(headers: Mapping[str, Any] | None) -> Origin:
    """Return the origin of a job from the headers that its sender has set."""
    headers = headers or {}
    after = headers.get(AFTER_HEADER)
    return Origin(
        owner=_owner(headers.get(OWNER_HEADER)),
        run=Run(_name(headers.get(SENDING_HEADER))),
        after=after if isinstance(after, str) and _EVENT_REFERENCE.fullmatch(after) else "",
    )


def origin_of_run(request: Any) -> Origin:
    """Return the origin of the events of a run.

    Args:
        request: the ``celery.app.task.Context`` of the run.
    """
    return origin_of_delivery(headers_of(request), request.retries, request.delivery_info)


def origin_of_delivery(
    headers: Mapping[str, Any] | None, retries: object, delivery_info: Mapping[str, Any] | None
) -> Origin:
    """Return the origin of the events of one delivery of a task's message.

    Args:
        headers: the headers of the message.
        retries: the number of earlier retries of the task.
        delivery_info: the broker's information about the delivery.
    """
    headers = headers or {}
    origin = origin_of(headers)
    run = structs.replace(
        origin.run,
        attempt=(retries if isinstance(retries, int) else 0) + 1,
        # Without a worker, as in ``apply()``, the header is missing.
        delivery=_name(headers.get(DELIVERY_HEADER)) or draw(),
        redelivered=bool((delivery_info or {}).get("redelivered")),
    )
    return structs.replace(origin, run=run)


def due(when: object) -> datetime:
    """Return the time at which a task is due.

    Args:
        when: a time, seconds from now, or None for now, as Celery passes it.
    """
    if isinstance(when, datetime):
        when = datetime.isoformat(when)  # an instance of a subclass cannot be encoded
    if isinstance(when, str):
        plain = datetime.fromisoformat(when)
        return plain if plain.tzinfo else plain.replace(tzinfo=UTC)
    return now() + timedelta(seconds=when if isinstance(when, int | float) else 0)


def _owner(value: object) -> str | None:
    if value is None:
        return None
    try:
        return owner_of(value)
    except (TypeError, ValueError) as exc:
        logger.warning("ignored an invalid header %s; the job has no owner: %s", OWNER_HEADER, exc)
        return None


def _name(text: object) -> str:
    return text if isinstance(text, str) and _NAME.fullmatch(text) else ""
