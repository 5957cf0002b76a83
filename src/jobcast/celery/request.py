"""The requests of jobs: Celery's deliveries of messages, in a worker's main process."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery.worker.request import Request
from kombu.utils.imports import symbol_by_name

from jobcast.celery.cancellable_request import CancellableRequest
from jobcast.celery.headers import DELIVERY_HEADER
from jobcast.celery.request_registry import remember
from jobcast.celery.result_backend import storable_id
from jobcast.transports.runs import draw


class JobRequest(CancellableRequest):
    """One delivery of a task's message, in a worker's main process."""

    def __init__(self, message: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(message, *args, **kwargs)
        self.id = self.request_dict["id"] = storable_id(self.request_dict["id"], self.task)
        # The child receives the header with the message, so both processes name the same run.
        self.request_dict[DELIVERY_HEADER] = draw()
        self._deliveries = remember(self)  # of the same job; they last as long as one of them


@cache
def request_class(own: Any) -> type[JobRequest]:
    """Return a class of requests that combines ``JobRequest`` with a project's own class.

    Args:
        own: the project's class or its qualified name; Celery's class if the project has none.

    Raises:
        TypeError: the two classes cannot be combined.
    """
    cls = symbol_by_name(own)
    if not (isinstance(cls, type) and issubclass(cls, Request)):
        raise TypeError(
            f"its Request is {own!r}, but should be a subclass of celery.worker.request.Request"
        )
    if issubclass(cls, JobRequest):
        return cls
    if cls is Request:
        return JobRequest
    try:
        # JobRequest comes first, so that the project's methods need not call super().
        both: type[JobRequest] = type(
            cls.__name__, (JobRequest, cls), {"__module__": cls.__module__}
        )
    except TypeError as exc:
        raise TypeError(
            f"its Request, {cls.__qualname__}, cannot be combined with jobcast's ({exc}):"
            " derive it from jobcast.celery.request.JobRequest"
        ) from None
    return both
