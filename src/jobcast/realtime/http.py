"""What the Socket.IO process answers over HTTP."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jobcast.realtime.gateway import Gateway


def health_routes(gateway: Gateway) -> list[Route]:
    """``/healthz``: the process lives. ``/readyz``: it receives events (else 503)."""

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> JSONResponse:
        ready = gateway.relay.ready
        return JSONResponse(
            {"status": "ready" if ready else "the transport is not reached"},
            status_code=200 if ready else 503,
        )

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
