"""The routes of the HTTP interface."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from jobcast.aio import cancel_and_wait
from jobcast.errors import TokenError
from jobcast.events import TERMINAL_STATES, Cursor, JoinAccepted, JoinJob, Left, Refusal
from jobcast.realtime.connection.http_response import HttpResponse
from jobcast.realtime.connection.origins import Origins
from jobcast.realtime.connection.screening import (
    DRAINING_MESSAGE,
    DRAINING_RETRY_AFTER,
    Refused,
    address_of,
)
from jobcast.realtime.connections import Connection
from jobcast.realtime.http.budgets import SubjectBudget, SubjectBudgets
from jobcast.realtime.http.cors import REFUSAL_HEADERS, Cors
from jobcast.realtime.http.event_stream import EventStream
from jobcast.realtime.http.feed_request import feed_of, parse_feed_stream, parse_page
from jobcast.realtime.http.feed_stream import FeedStream
from jobcast.realtime.http.job_stream import JobStream
from jobcast.realtime.http.openapi import description
from jobcast.realtime.http.problems import Problem
from jobcast.realtime.http.request import (
    StateRequest,
    check_size,
    job_to_cancel,
    parse_cancel,
    parse_state,
    parse_stream,
    target_of,
    token_of,
)
from jobcast.realtime.http.state import etag_of, is_known, state_of
from jobcast.realtime.http.waiting import EndWait
from jobcast.realtime.hub import Hub
from jobcast.realtime.rights import NOT_FOUND
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports.base import Snapshot

METHODS: Final = "GET, HEAD, OPTIONS"
CANCEL_METHODS: Final = "POST, OPTIONS"
STREAM_METHODS: Final = "GET, OPTIONS"  # a stream has no length that HEAD could tell
HINT: Final = "send the header Authorization: Bearer TOKEN"
STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # nginx then passes on each event at once
}
DRAINING_REFUSAL: Final = Refusal(
    code="unavailable", message=DRAINING_MESSAGE, retry_after=DRAINING_RETRY_AFTER
)


class Client(msgspec.Struct, frozen=True):
    """The client of a request."""

    sid: str
    subject: Subject
    budget: SubjectBudget
    address: str


class Exchange(msgspec.Struct, frozen=True):
    """A request, and what its answer needs."""

    request: Request
    send: Send
    sid: str
    headers: Mapping[str, str]  # of the answer


Stream = TypeVar("Stream", bound=EventStream)
Answer = Callable[[Exchange], Awaitable[Response | None]]


class Endpoint:
    """The ASGI application of one route."""

    def __init__(self, interface: HttpInterface, answer: Answer, methods: str) -> None:
        self._interface = interface
        self._answer = answer
        self.methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await self._interface.respond(self._answer, request, send, self.methods)


class ProblemRoute(Route):
    """A route that answers other methods itself, unless another route has them."""

    def __init__(self, path: str, endpoint: Endpoint) -> None:
        super().__init__(path, endpoint, methods=endpoint.methods.split(", "))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class FeedRoute(ProblemRoute):
    """A route for names that may contain line breaks, which Starlette's ``path`` does not match."""

    def __init__(self, path: str, endpoint: Endpoint) -> None:
        super().__init__(path, endpoint)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)


class HttpInterface:
    """The HTTP side of the hub. It keeps no state between requests, except for budgets.

    Args:
        hub: the connections of the process.
        settings: the limits, and the prefix of every path.
        start: starts to receive events in the running event loop; called before each request.
    """

    def __init__(self, hub: Hub, settings: Settings, start: Callable[[], None]) -> None:
        self._hub = hub
        self._settings = settings
        self._start = start
        self._cors = Cors(Origins(settings))
        self._budgets = SubjectBudgets(settings)
        self._description = msgspec.json.encode(description(settings))

    def routes(self) -> list[BaseRoute]:
        """Return the routes of jobs and feeds, ``/events`` and ``/openapi.json``."""
        return [
            ProblemRoute("/jobs", self._endpoint(self._jobs)),
            FeedRoute("/feeds/{feed:path}", self._endpoint(self._feed)),
            ProblemRoute(
                "/jobs/{job_id:path}/cancel", self._endpoint(self._cancel, CANCEL_METHODS)
            ),
            ProblemRoute("/jobs/{job_id:path}", self._endpoint(self._job)),
            ProblemRoute("/events", self._endpoint(self._events)),
            ProblemRoute("/openapi.json", self._endpoint(self._openapi)),
        ]

    def session_route(self) -> BaseRoute:
        """Return the route ``/session``, which tells the console who its user is."""
        return ProblemRoute("/session", self._endpoint(self._session))

    def _endpoint(self, answer: Answer, methods: str = METHODS) -> Endpoint:
        return Endpoint(self, answer, methods)

    async def respond(self, answer: Answer, request: Request, send: Send, methods: str) -> None:
        """Answer a request with a response, a stream or a problem document."""
        sid = secrets.token_urlsafe(15)
        headers: Mapping[str, str] = REFUSAL_HEADERS
        response: Response | None
        try:
            headers = self._cors.headers(request)
            response = await self._answer(answer, Exchange(request, send, sid, headers), methods)
        except Problem as problem:
            response = problem.response()
        except TokenError as exc:
            self._hub.report_refused(sid, address_of(request.scope), exc)
            response = Problem.of_token(exc).response()
        except Exception as exc:
            refusal = self._hub.requests.refusal_of(request.method, sid, exc)
            response = Problem.of_refusal(refusal).response()
        if response is not None:
            response.headers.update(headers)
            await response(request.scope, request.receive, send)

    async def _answer(self, answer: Answer, exchange: Exchange, methods: str) -> Response | None:
        check_size(exchange.request)
        if exchange.request.method == "OPTIONS":
            return self._cors.preflight(exchange.request)
        if exchange.request.method not in methods.split(", "):
            raise Problem.of_method(methods)
        return await answer(exchange)

    async def _openapi(self, _: Exchange) -> Response:
        return Response(self._description, media_type="application/json")

    async def _session(self, exchange: Exchange) -> Response:
        client = await self._client(exchange)
        body = msgspec.json.encode({"user": client.subject.sub})
        headers = {"Cache-Control": "no-store"}
        return Response(body, headers=headers, media_type="application/json")

    async def _job(self, exchange: Exchange) -> Response | None:
        client = await self._client(exchange)
        job_id, wants_events = target_of(exchange.request, self._settings.path_prefix)
        if wants_events:
            return await self._stream(exchange, client, [job_id])
        return await self._state(exchange, client, parse_state(exchange.request, job_id))

    async def _cancel(self, exchange: Exchange) -> Response:
        request = exchange.request
        client = await self._client(exchange)
        if token_of(request, in_query=self._settings.token_in_query) is None:
            self._cors.check_session(request)
        job_id = job_to_cancel(request, self._settings.path_prefix)
        async with client.budget.reading:
            wanted = await parse_cancel(request, job_id)
            answer = await self._hub.cancellations.cancel(client.subject, wanted)
        if isinstance(answer, Refusal):
            raise Problem.of_refusal(answer)
        body, headers = msgspec.json.encode(answer), {"Cache-Control": "no-store"}
        return Response(body, headers=headers, media_type="application/json")

    async def _events(self, exchange: Exchange) -> Response | None:
        client = await self._client(exchange)
        return await self._stream(exchange, client, exchange.request.query_params.getlist("job"))

    async def _client(self, exchange: Exchange) -> Client:
        """Authenticate the client of a request.

        Raises:
            TokenError: the client is not authenticated.
            Problem: the client makes too many requests.
        """
        if not self._hub.draining:
            self._start()
        request = exchange.request
        token = token_of(request, in_query=self._settings.token_in_query)
        subject = await self._hub.identify(token, request, HINT)
        budget = self._budgets.of(subject.sub)
        self._check_budget(exchange, budget.check_request())
        return Client(exchange.sid, subject, budget, address_of(request.scope))

    def _check_budget(self, exchange: Exchange, retry_after: float | None) -> None:
        if retry_after is not None:
            limited = self._hub.requests.limited(exchange.request.method, exchange.sid, retry_after)
            raise Problem.of_refusal(limited)

    # --- the state of a job -----------------------------------------------------------------------

    async def _state(
        self, exchange: Exchange, client: Client, wanted: StateRequest
    ) -> Response | None:
        snapshot = await self._read(exchange, client, wanted)
        if wanted.wait and snapshot.state not in TERMINAL_STATES:
            await self._wait(exchange, client, wanted, snapshot)
            snapshot = await self._read(exchange, client, wanted)
        etag = etag_of(snapshot, wanted.lines)
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if is_known(etag, exchange.request.headers.getlist("if-none-match")):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        body = msgspec.json.encode(state_of(wanted.job_id, snapshot, wanted.lines))
        return Response(body, headers=headers, media_type="application/json")

    async def _read(self, exchange: Exchange, client: Client, wanted: StateRequest) -> Snapshot:
        job_id = wanted.job_id
        grant = await self._hub.grant(client.subject, job_id)
        async with client.budget.reading:
            self._check_budget(exchange, await client.budget.afford_history(job_id))
            snapshot = await self._hub.read(client.subject, job_id, grant)
            client.budget.charge_history(sum(len(message.packet) for message in snapshot.events))
        return snapshot

    async def _wait(
        self, exchange: Exchange, client: Client, wanted: StateRequest, snapshot: Snapshot
    ) -> None:
        """Wait until a job ends, for a bounded time.

        Raises:
            Problem: the client may not follow the job, or has too many connections.
        """
        waiting = EndWait(client.sid, client.subject, client.budget, client.address)
        response = self._response(exchange)
        with self._connected(waiting):
            after = Cursor(epoch=snapshot.epoch, seq=snapshot.seq)
            answer = await self._join(waiting, wanted.job_id, after)
            if isinstance(answer, Refusal):
                raise Problem.of_refusal(answer)
            if answer.status not in TERMINAL_STATES:
                watching = asyncio.create_task(response.disconnected())
                watching.add_done_callback(lambda _: waiting.abort())
                try:
                    await waiting.wait(wanted.wait)
                finally:
                    await cancel_and_wait(watching)

    # --- the events of jobs -----------------------------------------------------------------------

    async def _stream(self, exchange: Exchange, client: Client, jobs: list[str]) -> Response | None:
        if exchange.request.method == "HEAD":
            raise Problem.of_method(STREAM_METHODS)
        wanted = parse_stream(exchange.request, jobs, self._settings.max_jobs)
        stream = self._new_stream(JobStream, exchange, client, cursors=wanted.jobs)
        with self._connected(stream), closing(stream):
            joins = iter(wanted.jobs.items())
            if not await self._join_first(stream, joins):
                return Response(status_code=HTTPStatus.NO_CONTENT)
            joining = asyncio.create_task(self._join_all(stream, joins))
            try:
                await stream.serve(_encoded({**STREAM_HEADERS, **exchange.headers}))
            finally:
                await cancel_and_wait(joining)
        return None

    async def _join_first(
        self, stream: JobStream, joins: Iterator[tuple[str, Cursor | None]]
    ) -> bool:
        """Join jobs until one has an event to come. Return False if none has.

        The client has then read everything: it came back after the end of its jobs.

        Raises:
            Problem: a job was refused, and the client has every event of the others.
        """
        refused: dict[str, Refusal] = {}
        for job_id, after in joins:
            answer = await self._join(stream, job_id, after)
            if isinstance(answer, Refusal):
                refused[job_id] = answer
            elif stream.has_events or not _is_at_end(answer, after):
                break
        else:
            _check_at_end(refused.values())
            return False
        for job_id, refusal in refused.items():
            await self._refuse(stream, job_id, refusal)
        return True

    async def _join_all(
        self, stream: JobStream, joins: Iterator[tuple[str, Cursor | None]]
    ) -> None:
        for job_id, after in joins:
            answer = await self._join(stream, job_id, after)
            if isinstance(answer, Refusal):
                await self._refuse(stream, job_id, answer)

    async def _refuse(self, stream: JobStream, job_id: str, refusal: Refusal) -> None:
        self._hub.send(stream, Left(job_id=job_id, code=refusal.code, message=refusal.message))
        await stream.left(job_id)

    # --- feeds ------------------------------------------------------------------------------------

    async def _jobs(self, exchange: Exchange) -> Response:
        client = await self._client(exchange)
        query = parse_page(exchange.request)
        async with client.budget.reading:
            retry_after = await client.budget.afford_history(f"feed {query.feed}")
            self._check_budget(exchange, retry_after)
            body = await self._hub.feeds.page(client.subject, query, client.budget)
        headers = {"Cache-Control": "private, no-cache"}
        return Response(body, headers=headers, media_type="application/json")

    async def _feed(self, exchange: Exchange) -> Response | None:
        client = await self._client(exchange)
        if exchange.request.method == "HEAD":
            raise Problem.of_method(STREAM_METHODS)
        feed = feed_of(exchange.request, self._settings.path_prefix)
        wanted = parse_feed_stream(exchange.request, feed)
        stream = self._new_stream(FeedStream, exchange, client)
        with self._connected(stream), closing(stream):
            follower = await self._hub.feeds.open(stream, wanted)
            if isinstance(follower, Refusal):
                raise Problem.of_refusal(follower)
            sending = asyncio.create_task(self._hub.feeds.send_pages(stream, follower, wanted))
            try:
                await stream.serve(_encoded({**STREAM_HEADERS, **exchange.headers}))
            finally:
                await cancel_and_wait(sending)
        return None

    # --- connections ------------------------------------------------------------------------------

    def _new_stream(
        self, cls: type[Stream], exchange: Exchange, client: Client, **options: Any
    ) -> Stream:
        return cls(
            client.sid,
            client.subject,
            client.budget,
            client.address,
            response=self._response(exchange),
            settings=self._settings,
            memory=self._hub.memory,
            **options,
        )

    def _response(self, exchange: Exchange) -> HttpResponse:
        """Return the response of a request whose connection stays open."""
        request = exchange.request
        return HttpResponse(request.receive, exchange.send, self._settings.send_timeout)

    @contextmanager
    def _connected(self, connection: Connection) -> Iterator[None]:
        """Have a connection in the hub within the context.

        Raises:
            TokenError: the subject has too many connections.
            Problem: the process accepts no further connection.
        """
        if self._hub.draining:
            raise Problem.of_refusal(DRAINING_REFUSAL)
        try:
            self._hub.addresses.check(connection.address)
        except Refused as exc:
            code = (
                "unavailable"
                if exc.status is HTTPStatus.SERVICE_UNAVAILABLE
                else "too_many_connections"
            )
            raise Problem(exc.status, code, exc.message, exc.retry_after) from None
        self._hub.addresses.add(connection.sid, connection.address)
        try:
            with self._hub.opening(connection.subject) as opening:
                opening.open(connection)
            yield
        finally:
            self._hub.remove(connection.sid, "the response ended")
            self._hub.addresses.remove(connection.sid)

    async def _join(
        self, connection: Connection, job_id: str, after: Cursor | None
    ) -> JoinAccepted | Refusal:
        request = JoinJob(job_id=job_id, after=UNSET if after is None else after)
        try:
            return await self._hub.join(connection, request)
        except Exception as exc:
            return self._hub.requests.refusal_of("join_job", connection.sid, exc)


def _is_at_end(answer: JoinAccepted, after: Cursor | None) -> bool:
    """Return whether a client that comes back has every event of a job that has ended."""
    return (
        after is not None
        and answer.recovered
        and answer.status in TERMINAL_STATES
        and answer.seq == after.seq
    )


def _check_at_end(refusals: Collection[Refusal]) -> None:
    """Check that a client has no reason to come back.

    Raises:
        Problem: a job was refused. It may be followed later: a job whose task was sent during an
            outage has no record before the outage ends.
    """
    if refusals:
        passing = [refusal for refusal in refusals if refusal.code != NOT_FOUND.code]
        raise Problem.of_refusal(next(iter(passing or refusals)))


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
