"""The endpoints that list tasks and start jobs: ``/api/tasks`` and ``/api/jobs``."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jobcast.demo.web.problems import Problem
from jobcast.demo.web.sender import BrokerAway, Sender
from jobcast.demo.web.session import signed_in
from jobcast.demo.web.site import Site
from jobcast.demo.web.task_catalog import TASK_CATALOG, CatalogTask, Input
from jobcast.demo.web.upload import receive
from jobcast.demo.web.workspaces import Workspaces

logger = logging.getLogger("jobcast.demo")


def starting_routes(site: Site) -> list[Route]:
    starting = Starting(site)
    return [
        Route("/api/tasks", show_tasks),
        Route("/api/jobs/{name}", starting.start, methods=["POST"]),
    ]


async def show_tasks(_: Request) -> JSONResponse:
    return JSONResponse({"tasks": [task.as_json for task in TASK_CATALOG.values()]})


class Starting:
    """The endpoint that starts jobs."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._sender = Sender(site.queue, site.settings.url)
        self._workspaces = Workspaces(site.directory / "jobs")

    async def start(self, request: Request) -> JSONResponse:
        user = signed_in(request)
        task = TASK_CATALOG.get(request.path_params["name"])
        if task is None:
            raise Problem(404, "unknown_task", "There is no such task.")
        job_id = f"{task.name}-{secrets.token_hex(4)}"
        # Disk access runs in a thread, because the event loop serves all connections.
        await run_in_threadpool(self._workspaces.sweep)
        with self._workspaces.new(job_id) as directory:
            upload = await receive(request, task, directory / "upload.csv")
            given = Input(samples=self._site.samples, workspace=directory, upload=upload)
            sent_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            await run_in_threadpool(self._send, user, job_id, task, given)
        job = {"job_id": job_id, "task": task.task, "title": task.title, "sent_at": sent_at}
        return JSONResponse(job, 201)

    def _send(self, user: str, job_id: str, task: CatalogTask, given: Input) -> None:
        """Send the job.

        Raises:
            Problem: the job cannot be sent now.
        """
        arguments = task.arguments(given)
        try:
            self._sender.send(task.task, arguments, job_id=job_id, owner=user, title=task.title)
        except BrokerAway as exc:
            logger.warning("%s was not started: %s", job_id, exc)
            raise Problem(
                503, "broker_away", "The job could not be sent: the broker does not take it."
            ) from exc
        logger.info("started %s for %r", job_id, user)
