"""jobcast for Starlette: a mount with the endpoints of pages that follow jobs.

>>> app = Starlette(routes=[mount("/jobcast", current_user=user_of)])
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from jobcast.events import MAX_BODY_BYTES
from jobcast.integrations.endpoint import Answer, Endpoint, Subject
from jobcast.issuing import TOKEN_TTL
from jobcast.settings import Settings

CurrentUser = Callable[[Request], "Subject | Awaitable[Subject | None] | None"]
"""Returns the id of the user of a request, as given to ``owned_by``; None without a user.

A plain function runs in a thread, so it may query a database.
"""


def mount(
    path: str,
    *,
    current_user: CurrentUser,
    settings: Settings | None = None,
    ttl: float = TOKEN_TTL,
    internal_url: str | None = None,
    name: str = "jobcast",
) -> Mount:
    """Return a mount with ``POST token``, ``GET jobs/ID``, its ``events`` and its ``cancel``.

    Args:
        path: the path of the mount.
        current_user: your session check.
        settings: the settings; by default those of the environment and of the Celery application
            that has ``jobcast_*`` settings.
        ttl: lifetime of tokens, in seconds.
        internal_url: the URL at which this process reaches ``jobcast serve``. The default is
            ``JOBCAST_PUBLIC_URL`` if that has a host, else the server's own address.
        name: the name of the mount, for ``url_for("jobcast:token")``.
    """
    endpoint = Endpoint(settings, ttl=ttl, internal_url=internal_url)

    async def token(request: Request) -> Response:
        return respond(endpoint.token(await _user(current_user, request)))

    async def snapshot(request: Request) -> Response:
        user = await _user(current_user, request)
        job_id = request.path_params["job_id"]
        return respond(await run_in_threadpool(endpoint.snapshot, user, job_id, request.url.query))

    async def events(request: Request) -> Response:
        user = await _user(current_user, request)
        return respond(endpoint.events(user, request.path_params["job_id"], request.url.query))

    async def cancel(request: Request) -> Response:
        user = await _user(current_user, request)
        job_id, content_type = request.path_params["job_id"], request.headers.get("content-type")
        body = await read_body(request)
        return respond(await run_in_threadpool(endpoint.cancel, user, job_id, content_type, body))

    routes = [
        Route("/token", token, methods=["POST"], name="token"),
        # A job id may contain slashes.
        Route("/jobs/{job_id:path}/events", events, name="events"),
        Route("/jobs/{job_id:path}/cancel", cancel, methods=["POST"], name="cancel"),
        Route("/jobs/{job_id:path}", snapshot, name="job"),
    ]
    return Mount(path, routes=routes, name=name)


def respond(answer: Answer) -> Response:
    """Return an answer as Starlette's response."""
    return Response(
        answer.body, answer.status, dict(answer.headers), media_type=answer.content_type
    )


async def read_body(request: Request) -> bytes:
    """Return the body of a request, or a part of it that is too long for the endpoint."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    return body


async def _user(current_user: CurrentUser, request: Request) -> Subject | None:
    answer: Any
    if inspect.iscoroutinefunction(current_user):
        answer = await current_user(request)
    else:
        answer = await run_in_threadpool(current_user, request)
    found: Subject | None = await answer if inspect.isawaitable(answer) else answer
    return found
