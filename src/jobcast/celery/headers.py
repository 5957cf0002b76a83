"""What a task's message says of its job."""

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
STANDS_IN_HEADER: Final = "jobcast_stands_in"  # the task that this one has replaced
DELIVERY_HEADER: Final = "jobcast_delivery"  # set by the worker that takes the message

#: What a message says of a job in its own top level.
HEADERS: Final = (
    OWNER_HEADER, SENDING_HEADER, AFTER_HEADER, STANDS_IN_HEADER, DELIVERY_HEADER,
)  # fmt: skip
#: What the next try of a run says too.
KEPT_BY_RETRIES: Final = (OWNER_HEADER, SENDING_HEADER, STANDS_IN_HEADER)

_NAME: Final = re.compile(r"[0-9a-z]{12}", re.ASCII)  # as ``draw`` makes them
_NAMES_AN_EVENT: Final = re.compile(r"\w+ \d{1,15}( \d{1,12})?", re.ASCII)

logger = logging.getLogger(__name__)


def headers_of(request: Any) -> dict[str, Any]:
    """The headers of jobcast's that a run's message has.

    Where a tracer (Sentry's for one) has put a dictionary of the name ``headers`` among the
    message's headers, Celery makes that ``request.headers``. The message's own top level are the
    attributes of the request.

    Args:
        request: the ``celery.app.task.Context`` of the run.
    """
    inner = request.headers
    found = {**(inner if isinstance(inner, Mapping) else {}), **vars(request)}
    return {name: found[name] for name in HEADERS if found.get(name) is not None}


def origin_of(headers: Mapping[str, Any] | None) -> Origin:
    """Where a job comes from, as who sends it says."""
    headers = headers or {}
    after = headers.get(AFTER_HEADER)
    return Origin(
        owner=_owner(headers.get(OWNER_HEADER)),
        run=Run(_name(headers.get(SENDING_HEADER))),
        after=after if isinstance(after, str) and _NAMES_AN_EVENT.fullmatch(after) else "",
    )


def origin_of_run(request: Any) -> Origin:
    """Where what is said of a run comes from.

    Args:
        request: the ``celery.app.task.Context`` of the run.
    """
    return origin_of_delivery(headers_of(request), request.retries, request.delivery_info)


def origin_of_delivery(
    headers: Mapping[str, Any] | None, retries: object, delivery_info: Mapping[str, Any] | None
) -> Origin:
    """Where what is said of one delivery of a task's message comes from."""
    headers = headers or {}
    origin = origin_of(headers)
    run = structs.replace(
        origin.run,
        attempt=(retries if isinstance(retries, int) else 0) + 1,
        # Without a worker (``apply()``) nobody has drawn it.
        delivery=_name(headers.get(DELIVERY_HEADER)) or draw(),
        redelivered=bool((delivery_info or {}).get("redelivered")),
    )
    return structs.replace(origin, run=run)


def due(when: object) -> datetime:
    """When a task is due; Celery says it as a time, as seconds from now, or not at all."""
    if isinstance(when, datetime):
        when = datetime.isoformat(when)  # that of a subclass, as pendulum's, does not encode
    if isinstance(when, str):
        plain = datetime.fromisoformat(when)
        return plain if plain.tzinfo else plain.replace(tzinfo=UTC)
    return now() + timedelta(seconds=when if isinstance(when, int | float) else 0)


def _owner(said: object) -> str | None:
    if said is None:
        return None
    try:
        return owner_of(said)
    except (TypeError, ValueError) as exc:
        logger.warning("a job is nobody's: %s", exc)
        return None


def _name(text: object) -> str:
    return text if isinstance(text, str) and _NAME.fullmatch(text) else ""
