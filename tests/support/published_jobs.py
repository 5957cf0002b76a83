"""A server whose jobs a test publishes over HTTP, for pages that show many jobs without workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobcast.events import JobComplete, JobError, JobLog, JobProgress, JobStatus
from jobcast.realtime import create_app as create_plain_app
from jobcast.settings import Settings
from jobcast.transports import Origin, Outgoing, open_publisher
from jobcast.transports.leases import SupportsLeaseRenewal
from tests.support import TIMEOUT, Server

EVENTS: Final = {
    event.name: event for event in (JobComplete, JobError, JobLog, JobProgress, JobStatus)
}


def create_app() -> Starlette:
    """Return a server with the console, and a route that publishes events in its own process."""
    settings = Settings.load()
    publisher = open_publisher(settings.url, settings.retention, prefix=settings.prefix)
    assert isinstance(publisher, SupportsLeaseRenewal)

    async def publish(request: Request) -> Response:
        sent = [
            Outgoing.of(msgspec.convert(fields, EVENTS[name]), Origin(owner=owner))
            for name, owner, fields in await request.json()
        ]
        await run_in_threadpool(publisher.publish, sent)
        await run_in_threadpool(publisher.renew, (), 60.0)  # writes the summaries that are due
        return Response(status_code=204)

    routes = [Route("/publish", publish, methods=["POST"])]
    return create_plain_app(settings, routes, console=True)


class PublishedJobs:
    """A server process, and the jobs that the test publishes there."""

    def __init__(self, folder: Path, **env: str) -> None:
        app = "tests.support.published_jobs:create_app"
        self.server = Server(folder / "server.log", "memory://", env, app=app)

    @property
    def url(self) -> str:
        return f"{self.server.url}/console"

    def publish(self, *events: tuple[str, str, dict[str, Any]]) -> None:
        """Publish events, each with its name, the owner of the job and its fields."""
        answer = httpx.post(f"{self.server.url}/publish", json=events, timeout=TIMEOUT)
        assert answer.status_code == 204, answer.text
