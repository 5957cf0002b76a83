"""The Socket.IO application with a drain period that is longer than a test."""

from __future__ import annotations

from starlette.applications import Starlette

from jobcast.realtime import create_app as create_plain_app
from jobcast.realtime import drain


def create_app() -> Starlette:
    drain.DRAIN_GRACE = 120.0  # type: ignore[misc]
    return create_plain_app()
