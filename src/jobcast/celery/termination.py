"""The traces that a terminated run leaves in Celery's pools."""

from __future__ import annotations

from signal import SIGKILL
from typing import Any

from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR


def ended_without_outcome(result: Any) -> bool:
    """Return whether a pool reports a run that ended without a result of its task.

    The pools of greenlets pass ``(False, None, None)`` for a killed greenlet, which for Celery is a
    success, and no tuple for one that ends with another ``BaseException``. The result of a task
    comes as the text of its value, or with the exception.
    """
    return not isinstance(result, tuple) or result[1] is None


def replace_child(pool: Any, pid: int) -> bool:
    """Kill a child whose run has survived SIGTERM, and has ended, so that the pool replaces it.

    The child would die of the next SIGTERM without any cleanup. Only under the fair strategy,
    Celery's default, does no other run begin in the child until the pool has handled the result of
    this one. Without it, or without the private attribute that has it, the child is kept.

    Returns:
        Whether the child is killed.
    """
    strategy = getattr(getattr(pool, "_pool", None), "sched_strategy", None)
    is_idle: bool = strategy == SCHED_STRATEGY_FAIR
    if is_idle:
        pool.terminate_job(pid, SIGKILL)
    return is_idle


def forget_termination(pool: Any, pid: int) -> None:
    """Clear the marks of a child that is kept although its run was terminated.

    The pool would take the loss of any later run in this child for a termination. Without the
    private method that finds the child, the marks stay.
    """
    find = getattr(getattr(pool, "_pool", None), "_process_by_pid", None)
    process = None if find is None else find(pid)[0]
    if process is not None:
        process._job_terminated = process._controlled_termination = False  # noqa: SLF001
