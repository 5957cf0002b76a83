"""Publish the remaining events before a Celery process ends."""

from __future__ import annotations

from celery import signals

from jobcast.celery.background import background
from jobcast.publishing import runtime


def _close(**_: object) -> None:
    runtime.close()


# A pool's child runs no exit handlers. Celery sends worker_process_shutdown when it recycles a
# child and at a warm shutdown.
signals.worker_process_shutdown.connect(_close, weak=False)
signals.worker_shutdown.connect(_close, weak=False)
runtime.before_close(background.close)
