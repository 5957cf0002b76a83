"""The description of a job: what its sender has set, with the defaults of its task's class."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import structs

from jobcast.celery.headers import info_of
from jobcast.celery.pools import pool_terminates
from jobcast.events import MAX_TAGS, JobInfo
from jobcast.publishing.job import current_job
from jobcast.publishing.labels import tags_of, title_of
from jobcast.publishing.texts import interrupts, safe_text

NAME_LIMIT: Final = 256  # characters of the name of a queue or a worker

logger = logging.getLogger(__name__)

_warned: set[tuple[str, str]] = set()  # tasks and attributes that have failed


def with_defaults(
    info: JobInfo, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> JobInfo:
    """Return a description with the title and the tags of a task's class.

    The title of the sender takes precedence; the tags of the class follow those of the sender. A
    format or a method that fails gives nothing, and is logged once for each task.

    Args:
        info: the description by the sender.
        task: the followed task.
        args: the positional arguments of the run.
        kwargs: the keyword arguments of the run.
    """
    title, tags = getattr(task, "job_title", None), getattr(task, "job_tags", ())
    if not getattr(task, "cancellable", True):
        info = structs.replace(info, cancellable=False)
    if info.title is None and title is not None:
        made = _guarded(task, "job_title", lambda: title_of(_made_title(title, task, args, kwargs)))
        info = structs.replace(info, title=made)
    if tags:
        own = _guarded(task, "job_tags", lambda: tags_of(_made_tags(tags, args, kwargs))) or ()
        info = structs.replace(info, tags=tuple(dict.fromkeys((*info.tags, *own)))[:MAX_TAGS])
    return info


def info_of_run(task: Any, followed: Any, headers: Mapping[str, Any]) -> JobInfo:
    """Return the description of a job, as the worker that runs it knows it.

    Args:
        task: the task that runs.
        followed: the followed task of the job; another one if ``task`` replaces it.
        headers: jobcast's headers of the run's message.
    """
    request = task.request
    if request.is_eager:
        # No message was sent: the current job is the one that calls the task.
        parent = current_job().job_id
        info = structs.replace(info_of(headers), task=safe_text(task.name), parent=parent)
    else:
        delivery_info = request.delivery_info
        info = info_of_message(task.app, headers, task.name, delivery_info, request.hostname)
        info = structs.replace(info, terminates=_terminates(followed))
    if task is followed:
        info = with_defaults(info, task, request.args or (), request.kwargs or {})
    else:
        info = structs.replace(info, cancellable=False)  # jobcast cannot stop the task
    if not request.is_eager:
        ends = info.cancellable and followed.cancel_grace is not None and pool_terminates()
        info = structs.replace(info, terminates=ends)
    return info


def info_of_message(
    app: Any, headers: Mapping[str, Any], name: object, delivery_info: object, worker: object = None
) -> JobInfo:
    """Return the description of a job, as a message of its task has it.

    Args:
        app: the Celery application of the worker that has received the message.
        headers: jobcast's headers of the message.
        name: the name of the task.
        delivery_info: the broker's information about the delivery.
        worker: the name of the worker that runs the task.
    """
    return structs.replace(
        info_of(headers),
        task=_name(name),
        queue=_queue_of(app, delivery_info if isinstance(delivery_info, Mapping) else {}),
        worker=_name(worker),
    )


def _terminates(followed: Any) -> bool:
    """Return whether the worker terminates cancelled runs of a task that do not end."""
    return followed.cancellable and followed.cancel_grace is not None and pool_terminates()


def queue_of_message(routing_key: object, declare: object) -> str | None:
    """Return the queue that a message is sent to.

    Args:
        routing_key: the routing key, as Celery's ``before_task_publish`` passes it.
        declare: the queues to declare, likewise.
    """
    names = [getattr(one, "name", None) for one in declare] if isinstance(declare, list) else []
    return _name(names[0] if names and names[0] else routing_key)


def _queue_of(app: Any, delivery_info: Mapping[str, Any]) -> str | None:
    """Return the queue that a message was taken from.

    Without an exchange the routing key is the queue's name. Otherwise a queue of this worker may
    have the binding of the message.
    """
    exchange, routing_key = delivery_info.get("exchange"), delivery_info.get("routing_key")
    if exchange:
        for name, queue in app.amqp.queues.items():
            bound = getattr(queue.exchange, "name", None)
            if bound == exchange and queue.routing_key == routing_key:
                return _name(name)
    return _name(routing_key)


def _made_title(title: Any, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
    if callable(title):
        return title(*args, **kwargs)
    positional, named = _bound(task, args, kwargs)
    return str(title).format(*positional, **named)


def _made_tags(tags: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return (tags(*args, **kwargs) or ()) if callable(tags) else tags


def _bound(
    task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Return the arguments by position and by name, however the caller has passed them."""
    try:
        bound = inspect.signature(task.run).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return args, kwargs
    bound.apply_defaults()
    return bound.args, {**bound.arguments, **bound.kwargs, **kwargs}


def _guarded(task: Any, attribute: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as exc:
        if interrupts(exc):
            raise
        # Foreign code may raise any exception; it must fail neither the task nor its sender.
        if (task.name, attribute) not in _warned:
            _warned.add((task.name, attribute))
            logger.warning(
                "%s of task %s failed; its jobs are shown without it (further failures are not"
                " logged)", attribute, task.name, exc_info=True,
            )  # fmt: skip
        return None


def _name(name: object) -> str | None:
    return safe_text(name, NAME_LIMIT) if isinstance(name, str) and name else None
