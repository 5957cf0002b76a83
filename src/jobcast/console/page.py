"""The files of the console's built page."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

# `make console` builds the page into this directory. A wheel contains it.
DIRECTORY: Final = Path(__file__).resolve().parents[1] / "_console"
NOT_BUILT: Final = "The console is not built. In a checkout of jobcast: make console\n"
FOREVER: Final = "public, max-age=31536000, immutable"  # the names of assets contain their hash


def page_routes(directory: Path = DIRECTORY) -> list[Route]:
    """Return the routes ``/``, ``/favicon.svg`` and ``/assets/``.

    Args:
        directory: the directory of the built page.
    """

    def index(_: Request) -> Response:
        path = directory / "index.html"
        if not path.is_file():
            return PlainTextResponse(NOT_BUILT, HTTPStatus.SERVICE_UNAVAILABLE)
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    def favicon(_: Request) -> Response:
        return FileResponse(existing(directory, "favicon.svg"))

    def asset(request: Request) -> Response:
        path = existing(directory / "assets", request.path_params["name"])
        return FileResponse(path, headers={"Cache-Control": FOREVER})

    return [
        Route("/", index),
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
