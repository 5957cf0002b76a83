"""Celery as the task framework of :mod:`jobcast.publishing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobcast.celery import shutdown as shutdown  # connects Celery's signals
from jobcast.celery.apps import configured_apps
from jobcast.celery.failures import failure_message, program_failure_message, reason_of
from jobcast.events import Reason


class CeleryHost:
    """A :class:`~jobcast.publishing.host.Host` for processes that have imported Celery."""

    def configurations(self) -> Sequence[Mapping[str, Any]]:
        return [app.conf for app in configured_apps()]

    def reason_of(self, exc: BaseException) -> Reason:
        return reason_of(exc)

    def failure_message(self, exc: BaseException) -> str:
        return failure_message(exc)

    def program_failure_message(self, exc: BaseException) -> str:
        return program_failure_message(exc)


CELERY: Final = CeleryHost()
