"""The login of the demo, which asks for a name and no password: ``/api/session``."""

from __future__ import annotations

import json
import re
from typing import Final

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobcast.demo.web.problems import Problem
from jobcast.demo.web.site import site_of
from jobcast.tokens import mint

COOKIE: Final = "jobcast_demo_session"
SESSION_SECONDS: Final = 12 * 3600
AUDIENCE: Final = "jobcast-demo-session"
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
LONGEST_BODY: Final = 1024  # bytes


def session_routes() -> list[Route]:
    return [
        Route("/api/session", show),
        Route("/api/session", sign_in, methods=["POST"]),
        Route("/api/session", sign_out, methods=["DELETE"]),
    ]


async def show(request: Request) -> JSONResponse:
    """Return the session, also without a login."""
    return JSONResponse({"user": _user_of(request)})


async def sign_in(request: Request) -> JSONResponse:
    """Sign in under any name, without a password."""
    name = _name_of(await _read_body(request))
    if name is None:
        raise Problem(
            400, "invalid_name", "A name is 1 to 40 letters, digits, hyphens, underscores or dots."
        )
    response = JSONResponse({"user": name})
    response.set_cookie(
        COOKIE,
        mint(site_of(request).session_key, name, ttl=SESSION_SECONDS, audience=AUDIENCE),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
    )
    return response


async def sign_out(_: Request) -> Response:
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def signed_in(request: Request) -> str:
    """Return the name of the signed-in user.

    Raises:
        Problem: the user is not signed in.
    """
    user = _user_of(request)
    if user is None:
        raise Problem(401, "signed_out", "You are not signed in.")
    return user


async def _read_body(request: Request) -> bytes:
    """Return the body of a request, without what follows soon after ``LONGEST_BODY`` bytes."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            break
    return body


def _name_of(body: bytes) -> str | None:
    """Return the name in the body of a login; None if there is no valid one."""
    try:
        name = json.loads(body)["name"]
        return name if NAME.fullmatch(name) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _user_of(request: Request) -> str | None:
    try:
        claims = jwt.decode(
            request.cookies.get(COOKIE, ""),
            site_of(request).session_key,
            algorithms=["HS256"],
            audience=AUDIENCE,
            options={"require": ["exp", "sub"]},
        )
    except jwt.PyJWTError:
        return None
    return str(claims["sub"])
