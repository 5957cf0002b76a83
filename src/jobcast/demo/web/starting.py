"""The endpoints that list tasks and start jobs: ``/api/tasks`` and ``/api/jobs``."""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobcast.demo.web.job_list import JobList, StartedJob
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
        Route("/api/jobs", starting.show),
        Route("/api/jobs/{name}", starting.start, methods=["POST"]),
        Route("/api/jobs/{job_id}", starting.remove, methods=["DELETE"]),
    ]


async def show_tasks(_: Request) -> JSONResponse:
    return JSONResponse({"tasks": [task.as_json for task in TASK_CATALOG.values()]})


class Starting:
    """The endpoints for the jobs that users start."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._sender = Sender(site.queue, site.settings.url)
        self._started = JobList(site.directory / "started.sqlite")
        self._workspaces = Workspaces(site.directory / "jobs")

    # Disk access runs in a thread, because the event loop serves all connections.
    async def show(self, request: Request) -> JSONResponse:
        jobs = await run_in_threadpool(self._started.of, signed_in(request))
        return JSONResponse({"jobs": [job.as_json for job in jobs]})

    async def remove(self, request: Request) -> Response:
        user, job_id = signed_in(request), request.path_params["job_id"]
        await run_in_threadpool(self._started.remove, user, job_id)
        return Response(status_code=204)

    async def start(self, request: Request) -> JSONResponse:
        user = signed_in(request)
        task = TASK_CATALOG.get(request.path_params["name"])
        if task is None:
            raise Problem(404, "unknown_task", "There is no such task.")
        job_id = f"{task.name}-{secrets.token_hex(4)}"
        await run_in_threadpool(self._workspaces.sweep)
        with self._workspaces.new(job_id) as directory:
            upload = await receive(request, task, directory / "upload.csv")
            given = Input(samples=self._site.samples, workspace=directory, upload=upload)
            job = await run_in_threadpool(self._start, user, job_id, task, given)
        return JSONResponse(job.as_json, 201)

    def _start(self, user: str, job_id: str, task: CatalogTask, given: Input) -> StartedJob:
        """Add the job to the user's list, then send it.

        Raises:
            Problem: the job cannot be sent now.
        """
        sent_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        job = StartedJob(job_id=job_id, task=task.task, title=task.title, sent_at=sent_at)
        arguments = task.arguments(given)
        self._started.add(user, job)
        try:
            self._sender.send(task.task, arguments, job_id=job_id, owner=user, title=task.title)
        except BaseException as exc:
            self._started.remove(user, job_id)
            if not isinstance(exc, BrokerAway):
                raise
            logger.warning("%s was not started: %s", job_id, exc)
            raise Problem(
                503, "broker_away", "The job could not be sent: the broker does not take it."
            ) from exc
        logger.info("started %s for %r", job_id, user)
        return job
