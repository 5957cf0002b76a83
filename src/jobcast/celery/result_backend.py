"""Progress in Celery's result backend, for readers such as ``AsyncResult`` and celery-progress.

The state is ``PROGRESS``, as celery-progress stores it. Its meta has the fields of ``job_progress``
and those that the pages of celery-progress read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from celery.backends.base import BaseKeyValueStoreBackend, DisabledBackend
from celery.states import PENDING
from kombu.utils.encoding import bytes_to_str
from msgspec import UNSET

from jobcast.celery.django_database import close_old_connections
from jobcast.events import JobProgress, payload_of
from jobcast.publishing.identity import job_id_of

PROGRESS: Final = "PROGRESS"
WHOLE: Final = 100  # the total of a progress in percent


def store_progress(task_id: object, task: Any, request: Any, progress: JobProgress) -> None:
    """Store the progress of a running task. It raises what the backend raises."""
    try:
        task.backend.store_result(task_id, meta_of(progress), PROGRESS, request=request)
    finally:
        # The backend may be a table of Django, and this thread has its own connection.
        close_old_connections()


def can_access_results(backend: Any) -> bool:
    """Return whether any process can read and store the result of a task by the task's id.

    The results of ``rpc://`` are messages to the sender of the task.
    """
    as_uri = getattr(backend, "as_uri", None)  # backends outside Celery may lack it
    return not isinstance(backend, DisabledBackend) and (as_uri is None or as_uri() != "rpc://")


def stores_failures(conf: Any, task: Any, request: Any = None) -> bool:
    """Return whether Celery stores the failures of a task.

    Args:
        conf: the configuration of the application, for a task that is unknown in this process.
        task: the task, or None.
        request: the ``celery.app.task.Context`` of a run, whose options come first.
    """
    if request is not None and request.is_eager and not task.store_eager_result:
        return False
    own = None if request is None else vars(request).get("ignore_result")
    if task is None:
        ignored, errors = conf.task_ignore_result, conf.task_store_errors_even_if_ignored
    else:
        ignored, errors = task.ignore_result, task.store_errors_even_if_ignored
    return bool(errors) or not (ignored if own is None else own)


def read_meta(backend: Any, task_id: str) -> Mapping[str, Any]:
    """Return the meta data of a task's result. It raises what the backend raises.

    Celery's public method caches results, and may repeat a failed read without limit.
    """
    read = getattr(backend, "_get_task_meta_for", None)
    meta: Mapping[str, Any] = (
        backend.get_task_meta(task_id, cache=False) if read is None else read(task_id)
    )
    return meta


def read_states(backend: Any, task_ids: Sequence[str]) -> dict[str, str]:
    """Return the states of tasks that one call can read. It raises what the backend raises.

    Those that are missing in the answer have to be read with :func:`read_meta`. Celery's public
    ``get_many`` caches states that may change.
    """
    if not isinstance(backend, BaseKeyValueStoreBackend):
        return {}
    keys = [bytes_to_str(backend.get_key_for_task(task_id)) for task_id in task_ids]
    try:
        found = backend.mget([backend.get_key_for_task(task_id) for task_id in task_ids])
    except NotImplementedError:
        return {}
    if hasattr(found, "items"):
        values = {bytes_to_str(key): value for key, value in found.items()}
        if not values.keys() <= set(keys):
            return {}  # the backend names its keys otherwise
        found = [values.get(key) for key in keys]
    found = [*found]
    if len(found) != len(task_ids):
        return {}
    states_found = {}
    for task_id, value in zip(task_ids, found, strict=True):
        with suppress(Exception):  # a serializer may raise any exception
            meta = backend.decode_result(value) if value else {"status": PENDING}
            if meta.get("task_id", task_id) == task_id:
                states_found[task_id] = meta["status"]
    return states_found


def storable_id(task_id: Any, task: Any) -> Any:
    """Return the id under which Celery can store the result of a task: its own id, or its text.

    Celery's stores of keys and values accept strings, and UUIDs since Celery 5.7. The error for
    other ids fails the task, and ends a worker with the ``solo`` pool.
    """
    if isinstance(task_id, str) or not isinstance(task.backend, BaseKeyValueStoreBackend):
        return task_id
    try:
        task.backend.get_key_for_task(task_id)
    except (TypeError, ValueError):
        return job_id_of(task_id)
    # The sender waits for a result with exactly the id that it has sent.
    return task_id


def meta_of(progress: JobProgress) -> dict[str, Any]:
    """Return the meta of a progress.

    >>> meta_of(JobProgress(job_id="42", percentage=40, message="busy"))["description"]
    'busy'
    """
    fields = payload_of(progress)
    for name in ("job_id", "seq"):
        fields.pop(name, None)
    return {**fields, **_celery_progress_fields(progress)}


def _celery_progress_fields(progress: JobProgress) -> dict[str, Any]:
    """Return ``current``, ``total``, ``percent``, ``description`` and ``pending``."""
    percent = progress.percentage or 0
    current, total = progress.current, progress.total
    if current is UNSET:
        current, total = round(percent, 2), WHOLE
    texts = (text for text in (progress.message, progress.stage) if text is not UNSET)
    return {
        "current": current,
        "total": 0 if total is UNSET else total,  # as celery-progress expects an unknown total
        "percent": round(percent, 2),
        "description": next(texts, ""),
        "pending": False,
    }
