"""The Celery applications of this process, and access to private attributes of Celery."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery import Celery, _state, current_app
from celery.utils import log

from jobcast.settings import names

logger = logging.getLogger(__name__)


def active_apps() -> tuple[Celery, ...]:
    """Return all Celery applications of this process.

    Celery has no public list of them. Without its private one, return the current application.
    """
    find = getattr(_state, "_get_active_apps", None)
    return (current_app,) if find is None else tuple(find())


def defines_task(app: Celery, name: str) -> bool:
    """Return whether an application defines a task, without finalizing the application.

    The public ``app.tasks`` would finalize it at a time that its user has not chosen. Without the
    private registry, return False.
    """
    return name in getattr(app, "_tasks", ())


def is_inside_call(request: Any) -> bool:
    """Return whether a run is already inside the ``__call__`` of its task.

    Celery marks this with a private attribute. Without it, every call counts as the first one.
    """
    return bool(getattr(request, "_protected", False))


def enter_call(request: Any) -> None:
    """Mark a run as inside the ``__call__`` of its task, as Celery's own ``__call__`` does."""
    request._protected = 1


def is_in_signal_handler() -> bool:
    """Return whether Celery is handling a signal, as it does at a shutdown.

    Celery has no public flag of it. Without its private one, return False.
    """
    return bool(getattr(log, "_in_sighandler", False))


def configured_apps() -> list[Celery]:
    """Return the applications whose configuration has jobcast settings."""
    return [app for app in active_apps() if _has_settings(app)]


def _has_settings(app: Celery) -> bool:
    try:
        conf: Mapping[str, Any] = app.conf
        return any(conf.get(name) is not None for name in names())
    except Exception:
        # The configuration's module may be missing or raise. Celery reports that to its users.
        logger.debug(
            "could not load the configuration of %r; its jobcast settings are ignored",
            app, exc_info=True,
        )  # fmt: skip
        return False
