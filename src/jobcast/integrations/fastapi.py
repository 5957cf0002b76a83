"""jobcast for FastAPI: a router with the endpoints of pages that follow jobs.

>>> app.include_router(router(current_user=current_user), prefix="/jobcast")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from jobcast.integrations.endpoint import Endpoint
from jobcast.integrations.starlette import read_body, respond
from jobcast.issuing import TOKEN_TTL
from jobcast.settings import Settings


class Token(BaseModel):
    """A token, when it expires, and the URL of the server, which may be empty."""

    token: str
    expires_at: str
    url: str


def router(
    *,
    current_user: Callable[..., Any],
    settings: Settings | None = None,
    ttl: float = TOKEN_TTL,
    internal_url: str | None = None,
    name: str = "jobcast",
    **options: Any,
) -> APIRouter:
    """Return a router with ``POST token``, ``GET jobs/ID``, its ``events`` and its ``cancel``.

    Args:
        current_user: a dependency of FastAPI that returns the id of the signed-in user, as given
            to ``owned_by``. It returns None or raises an ``HTTPException`` without a user.
        settings: the settings; by default those of the environment and of the Celery application
            that has ``jobcast_*`` settings.
        ttl: lifetime of tokens, in seconds.
        internal_url: the URL at which this process reaches ``jobcast serve``. The default is
            ``JOBCAST_PUBLIC_URL`` if that has a host, else the server's own address.
        name: the prefix of the routes' names, for ``url_for("jobcast:token")``.
        options: further options of ``APIRouter``, such as ``prefix`` and ``tags``.
    """
    endpoint = Endpoint(settings, ttl=ttl, internal_url=internal_url)
    found = APIRouter(**options)
    user_of_request: Any = Depends(current_user)

    def token(user: Any = user_of_request) -> Response:
        """Return a token with which a page of the user follows jobs."""
        return respond(endpoint.token(user))

    # A plain function, because it blocks: FastAPI runs it in a thread.
    def snapshot(request: Request, job_id: str, user: Any = user_of_request) -> Response:
        """Return the state of a job of the user."""
        return respond(endpoint.snapshot(user, job_id, request.url.query))

    def events(request: Request, job_id: str, user: Any = user_of_request) -> Response:
        """Redirect to the event stream of a job of the user."""
        return respond(endpoint.events(user, job_id, request.url.query))

    async def cancel(request: Request, job_id: str, user: Any = user_of_request) -> Response:
        """Cancel a job of the user. The body is a JSON object with an optional `message`."""
        content_type, body = request.headers.get("content-type"), await read_body(request)
        return respond(await run_in_threadpool(endpoint.cancel, user, job_id, content_type, body))

    found.add_api_route(
        "/token",
        token,
        methods=["POST"],
        name=f"{name}:token",
        summary="Token",
        response_model=Token,
    )
    # A job id may contain slashes.
    found.add_api_route(
        "/jobs/{job_id:path}/events",
        events,
        name=f"{name}:events",
        summary="Events",
        status_code=307,
    )
    found.add_api_route(
        "/jobs/{job_id:path}/cancel",
        cancel,
        methods=["POST"],
        name=f"{name}:cancel",
        summary="Cancel",
    )
    found.add_api_route("/jobs/{job_id:path}", snapshot, name=f"{name}:job", summary="Job")
    return found
