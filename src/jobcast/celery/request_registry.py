"""The requests that the main process of a worker has received."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from celery.worker import state
from celery.worker.request import Request

from jobcast.publishing.identity import job_id_of

if TYPE_CHECKING:
    from jobcast.celery.request import JobRequest

# The latest request of each job id. Celery's own list no longer has the requests that it has just
# stopped.
_requests: WeakValueDictionary[str, JobRequest] = WeakValueDictionary()


def remember(request: JobRequest) -> None:
    """Remember the request of a new delivery, which this process has received."""
    _requests[job_id_of(request.id)] = request


def latest_request(task_id: object) -> JobRequest | None:
    """Return the latest request of a job in this process."""
    return _requests.get(job_id_of(task_id))


def is_active(job_id: str) -> bool:
    """Return whether the pool runs a task with the id of a job, from any thread.

    The task may be one that replaces the job's own, and the run need not be of the latest request.
    """
    return any(job_id_of(request.id) == job_id for request in active_requests())


def is_stopped(task_id: object) -> bool:
    """Return whether Celery has stopped the run of a task in this process."""
    request = latest_request(task_id)
    return request is not None and request.is_stopped


def active_requests() -> list[Request]:
    """Return the requests whose runs are active, from any thread."""
    for _ in range(10):
        try:
            return [*state.active_requests]
        except RuntimeError:  # the main thread has changed the set during the iteration
            continue
    return []
