"""The ASGI application of ``jobcast demo``: the Socket.IO process with the demo's site."""

from __future__ import annotations

from starlette.applications import Starlette

from jobcast.demo.web.routes import site_routes
from jobcast.demo.web.site import load_site
from jobcast.realtime import create_app as create_plain_app
from jobcast.settings import Settings


def create_app() -> Starlette:
    """Return the application. ``jobcast demo`` serves it.

    Raises:
        SettingsError: the process does not belong to a demo, or other machines can reach it.
    """
    settings = Settings.load()
    return create_plain_app(settings, routes=[site_routes(load_site(settings))])
