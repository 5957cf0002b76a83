"""The abilities of the pool that runs the tasks of this process."""

from __future__ import annotations

import sys
from typing import Any

from billiard.process import current_process
from celery.concurrency.base import BasePool
from kombu.utils.compat import detect_environment


def in_pool_child() -> bool:
    """Return whether this is a pool's child, whose end its main process observes."""
    return "PoolWorker" in current_process().name


def pool_terminates() -> bool:
    """Return whether the worker can terminate a run of this process.

    The prefork pool terminates its children; those of greenlets terminate greenlets.
    """
    return in_pool_child() or detect_environment() in sys.modules


def can_terminate(pool: Any) -> bool:
    """Return whether a pool, in the main process of its worker, can terminate a run."""
    method = pool.terminate_job
    return getattr(method, "__func__", method) is not BasePool.terminate_job


def runs_in_children(pool: Any) -> bool:
    """Return whether a pool runs the tasks in other processes."""
    return can_terminate(pool) and not pool.is_green
