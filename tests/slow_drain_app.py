"""The Socket.IO process, which gives clients that do not go all the time that a test takes."""

from __future__ import annotations

from starlette.applications import Starlette

from jobcast.realtime import create_app as create_plain_app
from jobcast.realtime import drain


def create_app() -> Starlette:
    drain.DRAIN_GRACE = 120.0  # type: ignore[misc]
    return create_plain_app()
