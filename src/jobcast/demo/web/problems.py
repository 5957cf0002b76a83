"""Error responses, with a code and a message: ``{"code": ..., "message": ...}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

logger = logging.getLogger("jobcast.demo")


class Problem(HTTPException):
    """A refused request. ``message`` is a sentence that the page can show."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, message)
        self.code = code


def answer(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status, headers)


async def _refused(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101
    if isinstance(exc, Problem):
        return answer(exc.status_code, exc.code, exc.detail)
    status = HTTPStatus(exc.status_code)
    code = status.phrase.lower().replace(" ", "_")
    return answer(status, code, f"{status.phrase}.", exc.headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # a placeholder: the client has disconnected


async def _failed(request: Request, exc: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return answer(500, "internal_error", "The server failed. Its log has the cause.")


HANDLERS = {HTTPException: _refused, ClientDisconnect: _gone, Exception: _failed}
