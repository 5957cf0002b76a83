"""The requests that the main process of a worker has received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from celery.worker import state
from celery.worker.request import Request

from jobcast.celery.headers import DELIVERY_HEADER, headers_of
from jobcast.publishing.identity import job_id_of

if TYPE_CHECKING:
    from jobcast.celery.request import JobRequest

#: Requests by their delivery, in the order of their arrival.
Deliveries = WeakValueDictionary[str, "JobRequest"]

# All requests, and those of each job, which keep the latter. Celery's own list no longer has the
# requests that it has just stopped.
_deliveries: Deliveries = WeakValueDictionary()
_by_job: WeakValueDictionary[str, Deliveries] = WeakValueDictionary()


def remember(request: JobRequest) -> Deliveries:
    """Remember the request of a new delivery. Return those of its job, for the request to keep."""
    job_id, delivery = job_id_of(request.id), request.request_dict[DELIVERY_HEADER]
    siblings = _by_job.get(job_id)
    if siblings is None:
        siblings = _by_job[job_id] = WeakValueDictionary()
    _deliveries[delivery] = siblings[delivery] = request
    return siblings


def request_of(context: Any) -> JobRequest | None:
    """Return the request of a run in this process, from its ``celery.app.task.Context``.

    A broker may deliver a message again while its first run is active: the two have the same id.
    """
    return _deliveries.get(headers_of(context).get(DELIVERY_HEADER, ""))


def requests_of(task_id: object) -> list[JobRequest]:
    """Return the requests of a job in this process, the latest one last, from any thread."""
    siblings = _by_job.get(job_id_of(task_id))
    # An iteration of the dictionary itself would fail if another thread changed it.
    found = [] if siblings is None else [reference() for reference in siblings.valuerefs()]
    return [request for request in found if request is not None]


def latest_request(task_id: object) -> JobRequest | None:
    """Return the latest request of a job in this process."""
    return next(reversed(requests_of(task_id)), None)


def is_active(job_id: str) -> bool:
    """Return whether the pool runs a task with the id of a job, from any thread.

    The task may be one that replaces the job's own, and the run need not be of the latest request.
    """
    return any(job_id_of(request.id) == job_id for request in active_requests())


def waiting_deliveries(job_id: str) -> list[JobRequest]:
    """Return the requests of a job whose runs have not begun, such as those of redeliveries."""
    return [
        request for request in requests_of(job_id) if not (request.time_start or request.is_over)
    ]


def active_requests() -> list[Request]:
    """Return the requests whose runs are active, from any thread."""
    for _ in range(10):
        try:
            return [*state.active_requests]
        except RuntimeError:  # the main thread has changed the set during the iteration
            continue
    return []
