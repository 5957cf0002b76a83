"""The requests that the main process of a worker has received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakValueDictionary, ref

from celery.worker import state
from celery.worker.request import Request

from jobcast.celery.headers import DELIVERY_HEADER, headers_of
from jobcast.publishing.identity import job_id_of

if TYPE_CHECKING:
    from jobcast.celery.request import JobRequest

# The requests by their delivery, and the latest one of each job id. Celery's own list no longer has
# the requests that it has just stopped.
_deliveries: WeakValueDictionary[str, JobRequest] = WeakValueDictionary()
_latest: WeakValueDictionary[str, JobRequest] = WeakValueDictionary()


def remember(request: JobRequest) -> ReferenceType[JobRequest] | None:
    """Remember the request of a new delivery. Return the previous one of its job."""
    job_id = job_id_of(request.id)
    previous = _latest.get(job_id)
    _deliveries[request.request_dict[DELIVERY_HEADER]] = _latest[job_id] = request
    return None if previous is None else ref(previous)


def request_of(context: Any) -> JobRequest | None:
    """Return the request of a run in this process, from its ``celery.app.task.Context``.

    A broker may deliver a message again while its first run is active: the two have the same id.
    """
    return _deliveries.get(headers_of(context).get(DELIVERY_HEADER, ""))


def latest_request(task_id: object) -> JobRequest | None:
    """Return the latest request of a job in this process."""
    return _latest.get(job_id_of(task_id))


def is_active(job_id: str) -> bool:
    """Return whether the pool runs a task with the id of a job, from any thread.

    The task may be one that replaces the job's own, and the run need not be of the latest request.
    """
    return any(job_id_of(request.id) == job_id for request in active_requests())


def waiting_deliveries(job_id: str) -> list[JobRequest]:
    """Return the requests of a job whose runs have not begun, such as those of redeliveries."""
    found, request = [], latest_request(job_id)
    while request is not None:
        if not (request.time_start or request.is_over):
            found.append(request)
        request = None if request.previous is None else request.previous()
    return found


def active_requests() -> list[Request]:
    """Return the requests whose runs are active, from any thread."""
    for _ in range(10):
        try:
            return [*state.active_requests]
        except RuntimeError:  # the main thread has changed the set during the iteration
            continue
    return []
