"""The Socket.IO process: ``jobcast serve realtime.app:app``."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jobcast import issue_token
from jobcast.realtime import create_app
from jobcast.settings import Settings

settings = Settings.load()


async def current_user(request: Request) -> str | None:
    """Return the id of the signed-in user; None if no user is signed in.

    Put your session check here. ``owned_by(id)`` sends jobs for the same id. The function runs in
    the event loop of all connections: await your database, and run a blocking check in
    ``starlette.concurrency.run_in_threadpool``.
    """
    return None


async def token(request: Request) -> JSONResponse:
    """Return a token with which a page of the signed-in user connects."""
    user = await current_user(request)
    if user is None:
        raise HTTPException(401, "You are not signed in.")
    return JSONResponse({"token": issue_token(user, ttl=300, settings=settings)})


app = create_app(settings, routes=[Route("/token", token, methods=["POST"])])
