"""The files of the console's built page."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from jobcast.console.headers import SecurityHeaders
from jobcast.errors import JobcastError

# `make console` builds the page into this directory. A wheel contains it.
DIRECTORY: Final = Path(__file__).resolve().parents[1] / "_console"
FOREVER: Final = "public, max-age=31536000, immutable"  # the names of assets contain their hash


def console_routes(
    path: str,
    sign_in: Sequence[str],
    session: BaseRoute,
    directory: Path = DIRECTORY,
) -> list[BaseRoute]:
    """Return the routes of the console below a path.

    Args:
        path: the path, such as ``/console``.
        sign_in: how users can sign in: with a ``token``, or by their ``session`` with the
            application.
        session: the route ``/session``, which answers with the user of a request.
        directory: the directory of the built page.

    Raises:
        JobcastError: the page is not built.
    """
    config = {"server": posixpath.relpath("/", path), "sign_in": list(sign_in)}

    def show_config(_: Request) -> Response:
        return JSONResponse(config)

    def add_slash(_: Request) -> Response:
        # A relative location is also right behind a proxy that strips a prefix.
        location = f"{posixpath.basename(path)}/"
        return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": location})

    return [
        Route(path, add_slash),
        Mount(
            path,
            routes=[Route("/config.json", show_config), session, *page_routes(directory)],
            middleware=[Middleware(SecurityHeaders), Middleware(ExceptionMiddleware)],
        ),
    ]


def page_routes(directory: Path = DIRECTORY, name: str = "index.html") -> list[Route]:
    """Return the routes ``/``, ``/favicon.svg`` and ``/assets/``.

    Args:
        directory: the directory of the built page.
        name: the file of the page.

    Raises:
        JobcastError: the page is not built.
    """
    page = directory / name
    if not page.is_file():
        raise JobcastError(
            f"the console is not built: {page} is missing. In a checkout of jobcast, run"
            " `make console`; otherwise install jobcast again"
        )

    def show_page(_: Request) -> Response:
        return FileResponse(page, headers={"Cache-Control": "no-cache"})

    def favicon(_: Request) -> Response:
        return FileResponse(existing(directory, "favicon.svg"))

    def asset(request: Request) -> Response:
        path = existing(directory / "assets", request.path_params["name"])
        return FileResponse(path, headers={"Cache-Control": FOREVER})

    return [
        Route("/", show_page),
        Route("/favicon.svg", favicon),
        Route("/assets/{name}", asset),
    ]


def existing(directory: Path, name: str) -> Path:
    """Return the file with that name in the directory. Names with path separators never match.

    Raises:
        HTTPException: there is no such file.
    """
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name == name and path.is_file():
                return path
    raise HTTPException(HTTPStatus.NOT_FOUND)
