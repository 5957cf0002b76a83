"""Progress as one of Celery's task events, ``task-progress``, for monitors such as Flower."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from jobcast.events import JobProgress, payload_of

EVENT: Final = "task-progress"


def send_progress_event(task_id: object, task: Any, request: Any, progress: JobProgress) -> None:
    """Send the progress of a running task. It raises the errors of the broker's client."""
    fields = payload_of(progress)
    for name in ("job_id", "seq", "timestamp"):
        fields.pop(name, None)
    with task.app.events.default_dispatcher(hostname=request.hostname) as dispatcher:
        # Monitors show a fixed set of fields. Of these, only the result can show a progress.
        dispatcher.send(EVENT, uuid=str(task_id), retry=False, result=text_of(progress), **fields)


def text_of(progress: JobProgress) -> str:
    """Return a progress as a text.

    >>> text_of(JobProgress(job_id="42", percentage=40, message="busy", current=2, total=5))
    '40 %: busy (2 of 5)'
    """
    share = "" if progress.percentage is None else f"{progress.percentage:.4g} %"
    texts = [text for text in (progress.stage, progress.message) if text is not UNSET and text]
    text = ": ".join([part for part in (share, ", ".join(texts)) if part])
    return " ".join([part for part in (text, _count(progress)) if part])


def _count(progress: JobProgress) -> str:
    if progress.current is UNSET:
        return ""
    of = "" if progress.total is UNSET else f" of {progress.total:.15g}"
    return f"({progress.current:.15g}{of})"
