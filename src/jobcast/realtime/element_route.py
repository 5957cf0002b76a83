"""The route of the custom element ``<jobcast-job>``."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from jobcast.element import NAME, NOT_BUILT, PATH

HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    # The script is public: pages of any origin may load it, also as a module.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


def element_route(path: Path = PATH) -> Route:
    """Return the route ``/jobcast.js``.

    Args:
        path: the built file. It is read once.
    """
    script = path.read_bytes() if path.is_file() else None
    tag = f'"{hashlib.sha256(script or b"").hexdigest()[:32]}"'

    async def element(request: Request) -> Response:
        if script is None:
            return PlainTextResponse(NOT_BUILT, HTTPStatus.SERVICE_UNAVAILABLE)
        headers = {**HEADERS, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(script, headers=headers, media_type="text/javascript")

    return Route(f"/{NAME}", element)
