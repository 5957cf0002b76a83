"""The Socket.IO application with a drain that lasts until a second signal."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette

from jobcast.realtime import create_app as create_plain_app
from jobcast.realtime import hub


def create_app() -> Starlette:
    hub.drain = _drain_without_end  # type: ignore[assignment, attr-defined]
    return create_plain_app()


async def _drain_without_end(*_: object) -> None:
    await asyncio.Event().wait()
