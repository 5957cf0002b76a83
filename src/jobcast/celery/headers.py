"""jobcast's headers of a task's message."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import structs

from jobcast.events import JobInfo, is_job_id, now
from jobcast.publishing.identity import owner_of
from jobcast.publishing.labels import tags_of, title_of
from jobcast.transports import Origin, Run
from jobcast.transports.runs import CONTINUES, draw

OWNER_HEADER: Final = "jobcast_owner"
TITLE_HEADER: Final = "jobcast_title"
TAGS_HEADER: Final = "jobcast_tags"
PARENT_HEADER: Final = "jobcast_parent"  # the job that has sent the task
CREATED_HEADER: Final = "jobcast_created_at"
SENDING_HEADER: Final = "jobcast_sending"
AFTER_HEADER: Final = "jobcast_after"
STANDS_IN_HEADER: Final = "jobcast_stands_in"  # name of the task that this one replaces
DELIVERY_HEADER: Final = "jobcast_delivery"  # set by the worker that takes the message

#: All of jobcast's headers. They are at the top level of a message's headers.
HEADERS: Final = (
    OWNER_HEADER, TITLE_HEADER, TAGS_HEADER, PARENT_HEADER, CREATED_HEADER, SENDING_HEADER,
    AFTER_HEADER, STANDS_IN_HEADER, DELIVERY_HEADER,
)  # fmt: skip
#: The headers that a retry copies.
KEPT_BY_RETRIES: Final = (OWNER_HEADER, SENDING_HEADER, STANDS_IN_HEADER)

_NAME: Final = re.compile(r"[0-9a-z]{12}(\.[0-9a-z]{12})?", re.ASCII)  # see ``runs.py``
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


def info_of(headers: Mapping[str, Any] | None) -> JobInfo:
    """Return the description of a job from the headers that its sender has set."""
    headers = headers or {}
    parent = headers.get(PARENT_HEADER)
    return JobInfo(
        created_at=_time(headers.get(CREATED_HEADER)),
        title=title_of(headers.get(TITLE_HEADER)),
        tags=_tags(headers.get(TAGS_HEADER)),
        parent=parent if isinstance(parent, str) and is_job_id(parent) else None,
    )


def headers_of_info(info: JobInfo) -> dict[str, Any]:
    """Return the headers from which :func:`info_of` reads a description."""
    created_at = None if info.created_at is None else info.created_at.isoformat()
    headers = {
        TITLE_HEADER: info.title,
        TAGS_HEADER: list(info.tags),
        PARENT_HEADER: info.parent,
        CREATED_HEADER: created_at,
    }
    return {name: value for name, value in headers.items() if value}


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


def is_continuing(sending: object) -> bool:
    """Return whether the header of a message marks a task that replaces another one."""
    return CONTINUES in _name(sending)


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


def _tags(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    try:
        return tags_of(value if isinstance(value, list | tuple) else str(value))
    except (TypeError, ValueError) as exc:
        logger.warning("ignored an invalid header %s; the job has no tags: %s", TAGS_HEADER, exc)
        return ()


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None


def _name(text: object) -> str:
    return text if isinstance(text, str) and _NAME.fullmatch(text) else ""
