"""The files of the console's built page."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from realtime.console.problems import Problem

NOT_BUILT = "The console is not built. In a checkout of jobcast: make console\n"
FOREVER = "public, max-age=31536000, immutable"  # the names of assets contain their hash


def page_routes(directory: Path) -> list[Route]:
    """Return the routes ``/``, ``/favicon.svg`` and ``/assets/``.

    Args:
        directory: the directory of the built page.
    """

    def index(_: Request) -> Response:
        path = directory / "index.html"
        if not path.is_file():
            return PlainTextResponse(NOT_BUILT, 503)
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
        Problem: there is no such file.
    """
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name == name and path.is_file():
                return path
    raise Problem(404, "not_found", "There is no such file.")
