"""The routes of the demo's site: the console's page, the session, tokens and jobs."""

from __future__ import annotations

from pathlib import Path

from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Mount

from jobcast.console.headers import SecurityHeaders
from jobcast.console.page import DIRECTORY, page_routes
from jobcast.demo.web.guard import Guard
from jobcast.demo.web.problems import HANDLERS
from jobcast.demo.web.session import session_routes
from jobcast.demo.web.site import Site
from jobcast.demo.web.starting import starting_routes
from jobcast.demo.web.tokens import token_routes


def site_routes(site: Site, page: Path = DIRECTORY) -> Mount:
    """Return the site's routes, for ``create_app(routes=...)``.

    Args:
        site: the site's configuration.
        page: the directory of the built page.
    """
    return Mount(
        "/",
        routes=[
            *session_routes(),
            *token_routes(),
            *starting_routes(site),
            *page_routes(page, "demo.html"),
        ],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(Guard, site=site),
            Middleware(ExceptionMiddleware, handlers=HANDLERS),
        ],
    )
