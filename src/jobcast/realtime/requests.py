"""Client requests: each is validated and answered, one at a time per connection."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from jobcast.errors import InvalidMessage, TokenError, TransportUnavailable
from jobcast.events import Refusal, parse_request, payload_of
from jobcast.realtime import metrics
from jobcast.realtime.application_function import FunctionTimeout
from jobcast.realtime.connection.refusals import RefusalLog, shown
from jobcast.realtime.connections import Connection, Connections
from jobcast.realtime.rights import FAILED, UNDECIDED, NotAllowed

NOT_AUTHENTICATED: Final = Refusal(code="not_authenticated", message="connect first")
UNAVAILABLE: Final = Refusal(
    code="unavailable", message="the transport cannot be read now; try again in a moment"
)

logger = logging.getLogger(__name__)

Handler = Callable[[Connection, Any], Awaitable[msgspec.Struct]]


class Requests:
    """Factory of Socket.IO handlers from functions that answer a valid request.

    Args:
        connections: the connections that may make requests.
        refusals: the log of refused requests.
    """

    def __init__(self, connections: Connections, refusals: RefusalLog) -> None:
        self._connections = connections
        self._refusals = refusals

    def handler(
        self, name: str, cls: type[msgspec.Struct], handle: Handler
    ) -> Callable[..., Awaitable[dict[str, Any]]]:
        """Return the Socket.IO handler of a request.

        Args:
            name: the name of the request.
            cls: the type to parse the payload as.
            handle: returns the answer to a valid request, or raises.
        """

        async def answer(sid: str, *payload: Any) -> dict[str, Any]:
            connection = self._connections.get(sid)
            if connection is None:
                return payload_of(NOT_AUTHENTICATED)
            try:
                return payload_of(await self._answer(name, cls, handle, connection, payload))
            except Exception as exc:
                return payload_of(self.refusal_of(name, sid, exc))

        return answer

    def refusal_of(self, name: str, sid: str, exc: Exception) -> Refusal:
        """Log an exception that a request has raised, and return the client's answer.

        Args:
            name: the name of the request.
            sid: the connection.
            exc: the exception.
        """
        match exc:
            case InvalidMessage():
                self._refusals.info("refused %s of %s: %s", name, sid, shown(exc.problem))
                return Refusal(code="invalid_request", message=exc.problem)
            case TokenError():
                self._refusals.info("refused %s of %s: %s (%s)", name, sid, exc.message, exc.code)
                return Refusal(code=exc.code, message=exc.message)
            case NotAllowed():
                self._refusals.info("refused %s of %s: %s", name, sid, exc.refusal.code)
                metrics.REFUSED.labels(exc.refusal.code).inc()
                return exc.refusal
            case TransportUnavailable():
                logger.warning(
                    "could not answer %s of %s (%s); the client may try again", name, sid, exc
                )
                return UNAVAILABLE
            case FunctionTimeout():
                logger.error("refused %s of %s: %s", name, sid, exc)
                metrics.REFUSED.labels(UNDECIDED.code).inc()
                return UNDECIDED
        logger.error("%s of %s failed", name, sid, exc_info=exc)
        return FAILED

    async def _answer(
        self,
        name: str,
        cls: type[msgspec.Struct],
        handle: Handler,
        connection: Connection,
        payload: tuple[Any, ...],
    ) -> msgspec.Struct:
        retry_after = connection.budget.check_request()
        if retry_after is not None:
            return self.limited(name, connection.sid, retry_after)
        request = parse_request(name, payload[0] if payload else None, cls)
        connection.budget.begin_request()
        try:
            async with connection.requests:
                if connection.ended:
                    return NOT_AUTHENTICATED
                return await handle(connection, request)
        finally:
            connection.budget.end_request()

    def limited(self, name: str, sid: str, retry_after: float) -> Refusal:
        """Log and return the refusal of a request that exceeds the connection's budget.

        Args:
            name: the name of the request.
            sid: the connection.
            retry_after: seconds until the server answers requests again.
        """
        self._refusals.info(
            "refused %s of %s: the connection exceeds its budget (JOBCAST_MESSAGE_RATE,"
            " JOBCAST_HISTORY_RATE); it may ask again in %.1f s", name, sid, retry_after,
        )  # fmt: skip
        metrics.REFUSED.labels("rate_limited").inc()
        return Refusal(
            code="rate_limited",
            message="the connection asks for too much; ask again later",
            retry_after=round(retry_after, 3),
        )
