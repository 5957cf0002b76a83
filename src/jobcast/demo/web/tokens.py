"""The endpoint that issues tokens: ``/api/token``."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jobcast.demo.web.session import signed_in
from jobcast.demo.web.site import site_of
from jobcast.tokens import issue


def token_routes() -> list[Route]:
    return [Route("/api/token", show_token, methods=["POST"])]


async def show_token(request: Request) -> JSONResponse:
    """Return a token for the page's connection, which may follow only the user's own jobs."""
    user, site = signed_in(request), site_of(request)
    expires_at = datetime.fromtimestamp(int(time.time()) + site.token_seconds, UTC)
    return JSONResponse(
        {
            "token": issue(site.settings, user, ttl=site.token_seconds),
            "expires_at": expires_at.isoformat().replace("+00:00", "Z"),
        }
    )
