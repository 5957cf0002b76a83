"""The session check, and the login of the demonstration."""

import json
import re

import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobcast.tokens import mint
from realtime.console.problems import Problem
from realtime.console.site import Site, site_of

COOKIE = "jobcast_demo_session"
SESSION_SECONDS = 12 * 3600
AUDIENCE = "jobcast-demo-session"
NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
LONGEST_BODY = 1024  # bytes


async def current_user(request: Request) -> str | None:
    """Return the id of the signed-in user; None if the user is not signed in.

    Replace this function with your application's session check. The returned id is the owner of the
    user's jobs and the ``sub`` of the user's tokens. The function runs in the event loop that
    serves all connections: await your database, and run a blocking check in
    ``starlette.concurrency.run_in_threadpool``.
    """
    return _demonstration_user(request)


async def signed_in(request: Request) -> str:
    """Return the id of the signed-in user.

    Raises:
        Problem: the user is not signed in.
    """
    user = await current_user(request)
    if user is None:
        raise Problem(401, "signed_out", "You are not signed in.")
    return user


def session_routes(site: Site) -> list[Route]:
    routes = [Route("/api/session", show)]
    if site.is_demonstration:
        routes.append(Route("/api/session", sign_in, methods=["POST"]))
        routes.append(Route("/api/session", sign_out, methods=["DELETE"]))
    return routes


async def show(request: Request) -> JSONResponse:
    """Return the session, also without a login: the page needs to know which login to show."""
    return JSONResponse(
        {
            "user": await current_user(request),
            "demonstration": site_of(request).is_demonstration,
        }
    )


# The rest of this module is the login of the demonstration.


async def sign_in(request: Request) -> JSONResponse:
    """Sign in under any name, without a password."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            break
    try:
        name = json.loads(body)["name"]
        valid = NAME.fullmatch(name) is not None
    except (ValueError, TypeError, KeyError, RecursionError):
        valid = False
    if not valid:
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


def _demonstration_user(request: Request) -> str | None:
    site = site_of(request)
    if not site.is_demonstration:
        return None
    try:
        claims = jwt.decode(
            request.cookies.get(COOKIE, ""),
            site.session_key,
            algorithms=["HS256"],
            audience=AUDIENCE,
            options={"require": ["exp", "sub"]},
        )
    except jwt.PyJWTError:
        return None
    return str(claims["sub"])
