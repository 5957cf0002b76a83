"""jobcast: live progress, logs and outcomes of Celery jobs over Socket.IO.

>>> from jobcast import ProgressTask
>>> @app.task(base=ProgressTask, bind=True)
... def convert(self, pages):
...     for page in self.track(pages):
...         ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobcast.celery.enqueue import as_job, job_headers, owned_by, owner_headers
    from jobcast.celery.task import ProgressTask
    from jobcast.errors import JobCancelled
    from jobcast.issuing import issue_token
    from jobcast.publishing.job import Job, current_job
    from jobcast.publishing.runtime import open_job
    from jobcast.submission import Submission, submit
    from jobcast.targets import FeedTarget, JobTarget

__all__ = [
    "FeedTarget", "Job", "JobCancelled", "JobTarget", "ProgressTask", "Submission", "as_job",
    "current_job", "issue_token", "job_headers", "open_job", "owned_by", "owner_headers", "submit",
]  # fmt: skip

# Imported on first access: the Socket.IO process imports this package and must not import Celery.
# A name that describes a job comes from `enqueue`, which publishes the job when it is sent.
_HOMES = {
    "FeedTarget": "jobcast.targets",
    "Job": "jobcast.publishing.job",
    "JobCancelled": "jobcast.errors",
    "JobTarget": "jobcast.targets",
    "ProgressTask": "jobcast.celery.task",
    "Submission": "jobcast.submission",
    "as_job": "jobcast.celery.enqueue",
    "current_job": "jobcast.publishing.job",
    "issue_token": "jobcast.issuing",
    "job_headers": "jobcast.celery.enqueue",
    "open_job": "jobcast.publishing.runtime",
    "owned_by": "jobcast.celery.enqueue",
    "owner_headers": "jobcast.celery.enqueue",
    "submit": "jobcast.submission",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
