"""Fail the jobs of messages that a worker refuses: of unknown tasks, or undecodable ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final

from celery import Celery, signals
from celery.exceptions import NotRegistered

from jobcast.celery.background import background
from jobcast.celery.canvas import fail_steps
from jobcast.celery.description import info_of_message
from jobcast.celery.enqueue import fields_of, is_internal
from jobcast.celery.failures import Unacceptable
from jobcast.celery.headers import OWNER_HEADER, SENDING_HEADER, origin_of_delivery
from jobcast.publishing.identity import job_id_of
from jobcast.publishing.job import Job
from jobcast.publishing.runtime import get_runtime, new_job

JOB_HEADERS: Final = frozenset({OWNER_HEADER, SENDING_HEADER})  # headers that only jobs have

logger = logging.getLogger(__name__)


def refuse(app: Celery, message: Any, cause: BaseException) -> None:
    """Fail the job of a message that this worker refuses, if the headers are those of a job."""
    headers = message.headers
    if not isinstance(headers, Mapping) or not headers.keys() & JOB_HEADERS:
        return
    fields = headers if "id" in headers else fields_of(headers, _payload_of(message))
    if "id" in fields and not is_internal(str(fields.get("task"))):
        background.call(_refuse, app, message, fields, cause)


def _refuse(app: Celery, message: Any, fields: Mapping[str, Any], cause: BaseException) -> None:
    """Fail the job of a message that no worker will run, and the jobs of its later steps."""
    origin = origin_of_delivery(message.headers, fields.get("retries"), message.delivery_info)
    job = new_job(job_id_of(fields["id"]), origin=origin, celery_conf=app.conf)
    if isinstance(job, Job):
        name, delivery_info = fields.get("task"), message.delivery_info
        job.info = info_of_message(app, message.headers, name, delivery_info)
        job.fail(cause)
    match _payload_of(message):
        case [_, _, {"chain": steps, "chord": body}]:
            fail_steps(app, steps, body, origin.owner)


def _payload_of(message: Any) -> Any:
    try:
        return message.payload
    except Exception as exc:
        # A serializer may raise any exception, which may be the reason for the refusal.
        logger.debug("could not decode message %s: %s", message.delivery_tag, exc)
        return None


def _unknown(sender: Any, message: Any, name: str, **_: object) -> None:
    refuse(sender.app, message, NotRegistered(name))


def _rejected(sender: Any, message: Any, exc: BaseException | None, **_: object) -> None:
    refuse(sender.app, message, Unacceptable(str(exc)))


def _prepare(sender: Any, **_: object) -> None:
    """Load the transport before the first task is acknowledged, and observe decoding errors."""
    background.call(get_runtime, sender.app.conf)
    sender.on_decode_error = _with_refusal(sender.app, sender.on_decode_error)
    # The current task consumer already has the method. Celery sets it again on a reconnection.
    sender.task_consumer.on_decode_error = sender.on_decode_error


def _with_refusal(app: Celery, own: Callable[..., Any]) -> Callable[..., Any]:
    """Return Celery's handler of undecodable messages, preceded by failing their jobs.

    Celery has no signal for such messages.
    """

    @wraps(own)
    def on_decode_error(message: Any, exc: BaseException) -> Any:
        refuse(app, message, Unacceptable(str(exc)))
        return own(message, exc)

    return on_decode_error


signals.worker_ready.connect(_prepare, weak=False)
signals.task_unknown.connect(_unknown, weak=False)
signals.task_rejected.connect(_rejected, weak=False)
