"""The interface between publishing and the task framework of a process."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Protocol, cast

from jobcast.errors import SettingsError
from jobcast.events import Reason
from jobcast.publishing import failures
from jobcast.settings import Settings


class Host(Protocol):
    """A task framework, as publishing sees it."""

    def configurations(self) -> Sequence[Mapping[str, Any]]:
        """Return the configurations of this process that have jobcast settings."""

    def reason_of(self, exc: BaseException) -> Reason:
        """Return the reason of a failure."""

    def failure_message(self, exc: BaseException) -> str:
        """Return the message for followers of a task that failed."""

    def program_failure_message(self, exc: BaseException) -> str:
        """Return the message for followers of failed work outside of any task."""


class NoHost:
    """A process without a task framework."""

    def configurations(self) -> Sequence[Mapping[str, Any]]:
        return ()

    def reason_of(self, exc: BaseException) -> Reason:
        return failures.reason_of(exc)

    def failure_message(self, exc: BaseException) -> str:
        return failures.failure_message(exc)

    program_failure_message = failure_message


NO_HOST: Final = NoHost()


def find_host() -> Host:
    """Return the task framework of this process: Celery, where it is imported.

    The adapter is imported by name, so that publishing needs no Celery.
    """
    if sys.modules.get("celery") is None:
        return NO_HOST
    return cast("Host", import_module("jobcast.celery.host").CELERY)


def default_configuration(remedy: str) -> Mapping[str, Any] | None:
    """Return the Celery configuration of this process that has jobcast settings, if there is one.

    Args:
        remedy: for the error message, how the caller selects a configuration.

    Raises:
        SettingsError: two Celery applications have different settings.
    """
    confs = find_host().configurations()
    if len({Settings.load(celery_conf=conf) for conf in confs}) > 1:
        raise SettingsError(
            "JOBCAST_URL",
            "and the other jobcast settings differ between the Celery applications of this"
            f" process: {remedy}",
        )
    return confs[0] if confs else None
