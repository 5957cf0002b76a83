"""The traces that a terminated run leaves in Celery's pools."""

from __future__ import annotations

from signal import SIGKILL
from typing import Any

from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR


def ended_without_outcome(result: Any) -> bool:
    """Return whether what a pool passes on as the result of a run is none of the task.

    The pools of greenlets pass ``(False, None, None)`` for a killed greenlet, which for Celery is a
    success, and no tuple for one that ends with another ``BaseException``. The result of a task
    comes as the text of its value, or with the exception.
    """
    return not isinstance(result, tuple) or result[1] is None


def replace_child(pool: Any, pid: int) -> None:
    """Kill a child whose run has survived SIGTERM, and has ended, so that the pool replaces it.

    The pool would take the loss of any later run in this child for its termination, and the child
    would die of the next SIGTERM without any cleanup. Only under the fair strategy, Celery's
    default, does no other run begin in the child until the pool has handled the result of this
    one. Without it, or without the private attribute that has it, the child is kept.
    """
    strategy = getattr(getattr(pool, "_pool", None), "sched_strategy", None)
    if strategy == SCHED_STRATEGY_FAIR:
        pool.terminate_job(pid, SIGKILL)
