"""The Celery applications of this process, and what Celery has no public name for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery import Celery, _state, current_app

from jobcast.settings import names

logger = logging.getLogger(__name__)


def active_apps() -> tuple[Celery, ...]:
    """Return the applications that are alive.

    Celery has no public list of them; without its private one this is the current application.
    """
    find = getattr(_state, "_get_active_apps", None)
    return (current_app,) if find is None else tuple(find())


def defines_task(app: Celery, name: str) -> bool:
    """Return whether an application defines a task, without finalizing the application.

    The public ``app.tasks`` finalizes it, which is for its user to do. Where the private registry
    is missing, no application but the current one is taken to define a task.
    """
    return name in getattr(app, "_tasks", ())


def is_inside_call(request: Any) -> bool:
    """Return whether a run is in the ``__call__`` of its task already.

    Celery marks this with a private attribute. Without one every call counts as the first.
    """
    return bool(getattr(request, "_protected", False))


def enter_call(request: Any) -> None:
    """Mark that a run is in the ``__call__`` of its task, as Celery's own ``__call__`` does."""
    request._protected = 1


def configured_apps() -> list[Celery]:
    """Return the applications whose configuration has a setting of jobcast's."""
    return [app for app in active_apps() if _has_settings(app)]


def _has_settings(app: Celery) -> bool:
    try:
        conf: Mapping[str, Any] = app.conf
        return any(conf.get(name) is not None for name in names())
    except Exception:
        # Its module may not be there, or fail; that is for its own users to see.
        logger.debug("the configuration of %r cannot be loaded", app, exc_info=True)
        return False
