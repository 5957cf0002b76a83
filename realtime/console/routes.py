"""The routes of the console: its page, its session, its tokens and its jobs."""

import time
from datetime import UTC, datetime
from pathlib import Path

from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from jobcast.reference import console_directory
from jobcast.tokens import mint
from realtime.console.guard import Guard
from realtime.console.page import page_routes
from realtime.console.problems import HANDLERS
from realtime.console.session import session_routes, signed_in
from realtime.console.site import Site, site_of
from realtime.console.starting import starting_routes


def console(site: Site, page: Path | None = None) -> Mount:
    """Return the console's routes, for ``create_app(routes=...)``.

    Args:
        site: the site's configuration.
        page: the directory of the built page; by default the page that jobcast contains.
    """
    return Mount(
        "/",
        routes=[
            *session_routes(site),
            Route("/api/token", token, methods=["POST"]),
            *starting_routes(site),
            *page_routes(page or console_directory()),
        ],
        middleware=[
            Middleware(Guard, site=site),
            Middleware(ExceptionMiddleware, handlers=HANDLERS),
        ],
    )


async def token(request: Request) -> JSONResponse:
    """Return a token for the page's connection, which may follow only the user's own jobs."""
    user, site = await signed_in(request), site_of(request)
    expires_at = datetime.fromtimestamp(int(time.time()) + site.token_seconds, UTC)
    return JSONResponse(
        {
            "token": mint(
                site.secret,
                user,
                ttl=site.token_seconds,
                algorithm=site.settings.algorithms[0],
                audience=site.settings.jwt_audience,
                issuer=site.settings.jwt_issuer,
                kid=site.settings.secrets[0].kid,
            ),
            "expires_at": expires_at.isoformat().replace("+00:00", "Z"),
        }
    )
