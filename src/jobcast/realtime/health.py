"""HTTP routes of the Socket.IO process: health checks and metrics."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobcast.realtime import metrics
from jobcast.realtime.connection.screening import DRAINING_MESSAGE
from jobcast.realtime.gateway import Gateway


def health_routes(gateway: Gateway) -> list[Route]:
    """Return the routes ``/healthz`` and ``/readyz``.

    ``/healthz`` answers 200 while the process runs. ``/readyz`` answers 503 while the process
    cannot receive events or is draining, and 200 otherwise.
    """

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> JSONResponse:
        if gateway.ready:
            return JSONResponse({"status": "ready"})
        status = gateway.relay.problem or DRAINING_MESSAGE
        return JSONResponse({"status": status}, status_code=503)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def metrics_route() -> Route:
    """Return the route ``/metrics``, in Prometheus's text format."""

    async def expose(_: Request) -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", expose)
