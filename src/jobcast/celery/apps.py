"""The Celery applications of this process. Celery has no public list of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery._state import _get_active_apps

from jobcast.settings import names

logger = logging.getLogger(__name__)


def active_apps() -> tuple[Celery, ...]:
    """Return the applications that are alive."""
    return tuple(_get_active_apps())


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
