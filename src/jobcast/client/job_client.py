"""The asyncio client, which follows jobs from Python. Needs ``jobcast[client]``.

>>> async with JobClient("http://127.0.0.1:8000", token) as client:
...     async for event in client.follow(job_id):
...         print(event)
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

import socketio
from aiohttp import WSServerHandshakeError
from msgspec import UNSET
from socketio.exceptions import SocketIOError

from jobcast.aio import BackgroundTasks, Backoff, raise_lost_cancellation
from jobcast.errors import ClientError, ConnectionRefused, InvalidMessage, JobFailed, JoinRefused
from jobcast.events import (
    JOB_EVENTS,
    TERMINAL,
    JobComplete,
    JobError,
    JobEvent,
    JobProgress,
    JobStatus,
    Joined,
    Left,
    Refusal,
    TokenExpiring,
    check_job_id,
    parse_acknowledgement,
    parse_event,
    parse_request,
)
from jobcast.masking import mask_url

FIRST_DELAY: Final = 0.1  # seconds before the first attempt to reconnect
LONGEST_DELAY: Final = 5.0  # maximum seconds between two attempts
LONGEST_PAUSE: Final = 60.0  # maximum seconds that a server's retry_after can delay a request
LEFT_PAUSE: Final = 1.0  # maximum seconds before a job that the server left is joined again
PAUSE_SPREAD: Final = 0.25  # maximum jitter, as a fraction of a pause
CLOSE_TIMEOUT: Final = 5.0  # seconds that a clean disconnect may take
ANSWER_TIMEOUT: Final = 20.0  # seconds that the server may take to acknowledge a request
MEMORY: Final = 1000  # events of a job that are cached for later followers

SCHEMES: Final = frozenset({"http", "https", "ws", "wss"})

#: Codes of refusals after which the client repeats the request.
RETRYABLE_CODES: Final = frozenset({"unavailable", "internal_error", "rate_limited"})
#: The code of a connection error that the application's token function caused.
NO_TOKEN: Final = "token_unavailable"  # noqa: S105

#: Codes and hints for HTTP statuses that refuse a WebSocket handshake.
STATUS_HINTS: Final = {
    403: ("forbidden", "is the path of its URL right, and does it let this client in?"),
    404: ("not_found", "is the path of its URL right?"),
    429: ("unreachable", "this address has too many connections; try again later"),
    503: (
        "unreachable",
        "it is full or shutting down, or its proxy cannot reach it; try again later",
    ),
}

Token = str | Callable[[], str | Awaitable[str]]
ConnectionState = Literal["connecting", "connected", "reconnecting", "closed"]

logger = logging.getLogger(__name__)


def check_server_url(url: str) -> str:
    """Return the path of a server's URL, without leading and trailing slashes.

    Raises:
        ValueError: the URL is not valid.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"the server should be a URL such as http://127.0.0.1:8000, not {url!r}")
    return parts.path.strip("/")


def check_namespace(namespace: str) -> str:
    """Return ``namespace`` if it is a valid Socket.IO namespace.

    Raises:
        ValueError: it does not begin with a slash, or it has a character that ends a namespace.
    """
    if not namespace.startswith("/") or any(mark in namespace for mark in ",?#"):
        raise ValueError(f"a namespace should begin with / and have no , ? or #, not {namespace!r}")
    return namespace


def pause_before_retry(refusal: Refusal, delay: float) -> float:
    """Return the seconds to wait before a refused request is repeated.

    Args:
        refusal: the server's refusal. Its ``retry_after``, up to ``LONGEST_PAUSE``, is the minimum.
        delay: the client's own backoff, which is the maximum without a ``retry_after``.
    """
    retry_after = 0.0 if refusal.retry_after is UNSET else refusal.retry_after
    least = min(LONGEST_PAUSE, max(0.0, retry_after))
    # Jitter, so that requests refused at the same time are not repeated at the same time.
    return max(least * random.uniform(1, 1 + PAUSE_SPREAD), random.uniform(FIRST_DELAY, delay))


class _Follower:
    """One iteration over the events of a job, with the seq of the last event it received."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[JobEvent | ClientError] = asyncio.Queue()
        self.seq = 0
        self.awaits_replay = False  # drops events until the server replays the whole record

    def deliver(self, event: JobEvent) -> None:
        if not self.awaits_replay and event.seq > self.seq:
            self.seq = event.seq
            self.queue.put_nowait(event)


class _Followed:
    """A followed job: its position, its cached events and its followers."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.epoch = ""
        self.seq = 0
        self.status: str | None = None
        self.join_sent = False  # a `joined` that arrives earlier belongs to a previous join
        self.joined = False  # the latest join request took effect
        self.joining: asyncio.Task[None] | None = None
        self.followers: list[_Follower] = []
        self._status_seq = 0  # the status covers all events up to this seq
        self._full_replay = False  # the latest join request asked for the whole record
        self._truncated = False  # the cache lacks events that the server may still have
        self._has_ended = False  # later events of the same run can only be late log lines
        self._events: deque[JobEvent] = deque(maxlen=MEMORY)
        self._progress: JobProgress | None = None

    @property
    def awaits_replay(self) -> bool:
        """Whether a follower waits for the server to replay the whole record."""
        return any(follower.awaits_replay for follower in self.followers)

    def join_request(self) -> dict[str, Any]:
        """Return the payload of a join request, and record that it is being sent."""
        self.join_sent = True
        self.joined = False
        self._full_replay = not self.epoch or self.awaits_replay
        after = {} if self._full_replay else {"after": {"epoch": self.epoch, "seq": self.seq}}
        return {"job_id": self.job_id, **after}

    def attach(self) -> _Follower:
        """Add a follower. It first receives the cached events, as from a replay by the server."""
        follower = _Follower()
        follower.awaits_replay = self._truncated
        cached = [*self._events, *([self._progress] if self._progress else [])]
        for event in sorted(cached, key=lambda event: event.seq):
            follower.deliver(event)
        self.followers.append(follower)
        return follower

    def begin(self, joined: Joined) -> None:
        if not self.join_sent:
            return
        self.joined = True
        self.status, self._status_seq = joined.status, joined.seq
        if joined.epoch != self.epoch:
            self.epoch, self.seq = joined.epoch, 0
            self._clear_cache()
            for follower in self.followers:
                follower.seq = 0
        elif not self._full_replay:
            return
        for follower in self.followers:
            follower.awaits_replay = False

    def receive(self, event: JobEvent) -> None:
        if not self.epoch:  # no `joined` has named a record: the event is of a previous join
            return
        if event.seq > self.seq:
            self._cache(event)
        for follower in self.followers:
            follower.deliver(event)

    def refuse(self, problem: ClientError) -> None:
        for follower in self.followers:
            follower.queue.put_nowait(problem)

    def _cache(self, event: JobEvent) -> None:
        self.seq = event.seq
        if event.seq > self._status_seq:
            self.status = event.state or self.status
        if self._has_ended and isinstance(event, JobStatus):
            # A new run begins. The server's replay does not contain the run that ended either.
            self._clear_cache()
        self._has_ended = self._has_ended or event.kind == TERMINAL
        if isinstance(event, JobProgress):
            self._progress = event
        else:
            self._truncated = self._truncated or len(self._events) == MEMORY
            self._events.append(event)

    def _clear_cache(self) -> None:
        self._events.clear()
        self._progress = None
        self._truncated = False
        self._has_ended = False


class JobClient:
    """A connection to a jobcast server that reconnects automatically while the client is open.

    Args:
        url: the server's URL, such as ``http://127.0.0.1:8000``. A path precedes ``/socket.io``.
        token: a token, or a function (plain or async) that returns one. The client calls the
            function for each connection, and before a token expires. If the function fails while
            the client is open, the client calls it again until it succeeds.
        on_state: callback that receives each new state of the connection. Its exceptions are
            logged.
        namespace: the Socket.IO namespace that the server attaches jobcast to.

    Raises:
        ConnectionRefused: on entering: the server refused the token or could not be reached, or
            the token function failed (code ``token_unavailable``). Once the client is open, it
            retries after such errors, except if the server refuses the token.
        ValueError: the URL or the namespace is not valid.

    >>> async with JobClient("http://127.0.0.1:8000", token) as client:
    ...     result = await client.result(job_id)
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        on_state: Callable[[ConnectionState], None] | None = None,
        namespace: str = "/",
    ) -> None:
        self._url = url
        self._namespace = check_namespace(namespace)
        self._path = f"{check_server_url(url)}/socket.io".lstrip("/")
        self._token = token
        self._on_state = on_state or (lambda _: None)
        self._state: ConnectionState = "closed"
        self._sio: socketio.AsyncClient | None = None
        self._followed: dict[str, _Followed] = {}
        self._joining: set[asyncio.Task[None]] = set()
        self._leaving: dict[str, asyncio.Task[Any]] = {}
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)  # between attempts to reconnect
        self._tasks = BackgroundTasks()
        self._lost = asyncio.Event()
        self._problem: ClientError | None = ConnectionRefused("closed", "the client is not open")

    async def __aenter__(self) -> Self:
        self._enter("connecting")
        try:
            await self._connect()
        except BaseException:
            self._enter("closed")
            raise
        self._problem = None
        self._tasks.spawn(self._keep_connected())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._tasks.cancel()
        await self._disconnect()
        self._give_up(ConnectionRefused("closed", "the client was closed"))
        self._enter("closed")

    async def follow(self, job_id: str) -> AsyncGenerator[JobEvent, None]:
        """Yield the events of a job: its history, then live events, up to its terminal event.

        A lost connection only delays events: none is missed or repeated after the reconnect.
        Followers of the same job share one join, and the client leaves the job when the last
        follower stops. A later follower receives the same history as from the server. The client
        requests the history again if its cache is incomplete.

        Raises:
            InvalidJobId: the job id is not valid.
            JoinRefused: the server refused to let the client follow the job.
            ConnectionRefused: the server no longer accepts the token, or the client is closed
                (code ``closed``).

        >>> async for event in client.follow(job_id):
        ...     print(event)
        """
        check_job_id(job_id)
        if self._problem is not None:
            raise self._problem
        followed = self._followed.get(job_id)
        if followed is None:
            followed = self._followed[job_id] = _Followed(job_id)
            self._start(followed, self._join(followed))
        follower = followed.attach()
        if follower.awaits_replay:
            self._start(followed, self._join_again(followed, followed.joining))
        try:
            while True:
                item = await follower.queue.get()
                if isinstance(item, ClientError):
                    raise item
                yield item
                if item.kind == TERMINAL:
                    return
        finally:
            followed.followers.remove(follower)
            if not followed.followers and self._followed.get(job_id) is followed:
                del self._followed[job_id]
                self._leave(job_id)

    async def result(self, job_id: str) -> Any:
        """Wait for the end of a job and return its result.

        Raises:
            JobFailed: the job ended with an error.
            JoinRefused, ConnectionRefused: as for :meth:`follow`.
        """
        async with aclosing(self.follow(job_id)) as events:
            async for event in events:
                if isinstance(event, JobComplete):
                    return event.result
                if isinstance(event, JobError):
                    raise JobFailed(job_id, event.error, event.message, event.reason)
        raise AssertionError("a job ends with a terminal event")

    def status(self, job_id: str) -> str | None:
        """Return the state of a job; None if it is not followed here or its join is pending.

        The state is correct even if the history no longer contains the event that led to it.
        """
        followed = self._followed.get(job_id)
        return None if followed is None else followed.status

    async def _keep_connected(self) -> None:
        while True:
            await self._lost.wait()
            self._enter("reconnecting")
            await self._disconnect()
            await asyncio.sleep(self._backoff.delay())
            # A connection alone is not a success: the server may drop it after the first requests.
            # An answered join resets the backoff.
            self._backoff.failed()
            try:
                await self._connect()
            except ConnectionRefused as exc:
                if exc.code == NO_TOKEN:
                    logger.warning(
                        "could not reconnect: the token function failed (%r); trying again",
                        exc.__cause__,
                    )
                elif exc.code.startswith("token_"):
                    self._give_up(exc)
                    return
                self._lost.set()
                continue
            for followed in self._followed.values():
                self._start(followed, self._join(followed))

    def _give_up(self, problem: ClientError) -> None:
        """Raise ``problem`` in all present and later followers."""
        self._problem = problem
        for followed in self._followed.values():
            followed.refuse(problem)
        self._followed.clear()

    async def _connect(self) -> None:
        try:
            await self._connect_once()
        except ConnectionRefused as exc:
            # The function may have returned a cached token, so it is called once more.
            if exc.code != "token_expired" or not callable(self._token):
                raise
            await self._connect_once()

    async def _connect_once(self) -> None:
        refusals: list[Any] = []
        # python-socketio would replace the application's SIGINT handler and cancel all tasks.
        sio = socketio.AsyncClient(
            reconnection=False, handle_sigint=False,
            # The server's settings bound its messages, and may exceed aiohttp's default of 4 MiB.
            websocket_extra_options={"max_msg_size": 0},
        )  # fmt: skip
        sio.on("*", self._receive, namespace=self._namespace)
        sio.on("connect_error", refusals.append, namespace=self._namespace)
        sio.on("disconnect", lambda *_: self._lost.set(), namespace=self._namespace)
        self._lost.clear()
        self._sio = sio
        try:
            token = await self._get_token()
            await sio.connect(
                self._url, auth={"token": token}, transports=["websocket"],
                wait_timeout=ANSWER_TIMEOUT, socketio_path=self._path,
                namespaces=[self._namespace],
            )  # fmt: skip
            raise_lost_cancellation()
        except ConnectionRefused:
            await self._disconnect()
            raise
        # TypeError: python-engineio parses the close code of a WebSocket as a packet.
        except (SocketIOError, ValueError, TypeError) as exc:
            await self._disconnect()
            raise _refusal(refusals, exc, self._url) from None
        except asyncio.CancelledError:
            await self._disconnect()
            raise
        self._enter("connected")

    def _enter(self, state: ConnectionState) -> None:
        if state != self._state:
            self._state = state
            try:
                self._on_state(state)
            except Exception:
                logger.exception("on_state failed")

    async def _disconnect(self) -> None:
        sio, self._sio = self._sio, None
        for request in (*self._joining, *self._leaving.values()):
            request.cancel()  # a request is valid only on its own connection
        if sio is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await sio.disconnect()
            except TimeoutError:
                logger.debug("the server did not answer the disconnect within %s s", CLOSE_TIMEOUT)
            if sio.eio.http is not None:  # python-engineio leaves it open after a refusal
                await sio.eio.http.close()

    async def _get_token(self) -> str:
        """Return the token, or the result of the token function.

        Raises:
            ConnectionRefused: the token function failed.
        """
        try:
            token = self._token() if callable(self._token) else self._token
            return await token if inspect.isawaitable(token) else token
        except Exception as exc:
            raise ConnectionRefused(NO_TOKEN, f"the token function failed: {exc!r}") from exc

    def _start(self, followed: _Followed, join: Coroutine[Any, Any, None]) -> None:
        followed.joining = self._tasks.spawn(join)
        self._joining.add(followed.joining)
        followed.joining.add_done_callback(self._joining.discard)

    async def _join(self, followed: _Followed) -> None:
        job_id, backoff = followed.job_id, Backoff(FIRST_DELAY, LONGEST_DELAY)
        if job_id in self._leaving:
            # Events of the previous join may arrive until the server acknowledges the leave.
            await asyncio.wait({self._leaving[job_id]})
        while self._followed.get(job_id) is followed:
            answer = await self._request("join_job", followed.join_request())
            if answer is not None:
                self._backoff.reset()
            if not isinstance(answer, Refusal):
                return  # joined; or the connection is lost, and the next connection joins again
            if answer.code == "not_authenticated":
                self._lost.set()
                return
            if answer.code not in RETRYABLE_CODES:
                self._end(followed, JoinRefused(job_id, answer.code, answer.message))
                return
            await asyncio.sleep(pause_before_retry(answer, backoff.ceiling))
            backoff.failed()

    async def _join_after_pause(self, followed: _Followed) -> None:
        await asyncio.sleep(random.uniform(FIRST_DELAY, LEFT_PAUSE))
        await self._join(followed)

    def _end(self, followed: _Followed, problem: JoinRefused) -> None:
        """Raise ``problem`` in all followers of the job. A later follower joins again."""
        if self._followed.get(followed.job_id) is followed:
            del self._followed[followed.job_id]
        followed.refuse(problem)

    async def _join_again(self, followed: _Followed, earlier: asyncio.Task[None] | None) -> None:
        """Join again to get a full replay, if a follower still waits for one."""
        if earlier is not None:
            # Until the earlier join is answered, a `joined` may belong to a partial replay.
            await asyncio.wait({earlier})
        if followed.awaits_replay:
            await self._join(followed)

    def _leave(self, job_id: str) -> None:
        # In the background: a follower that stops may be cancelled and must not wait.
        if self._problem is None:
            leaving = self._tasks.spawn(self._request_leave(job_id))
            self._leaving[job_id] = leaving
            leaving.add_done_callback(partial(self._left, job_id))

    async def _request_leave(self, job_id: str) -> None:
        """Leave a job. Give up if it is followed again before the server accepts the request."""
        backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        while True:
            answer = await self._request("leave_job", {"job_id": job_id}, optional=True)
            if not isinstance(answer, Refusal) or answer.code not in RETRYABLE_CODES:
                return
            await asyncio.sleep(pause_before_retry(answer, backoff.ceiling))
            if job_id in self._followed:
                return
            backoff.failed()

    def _left(self, job_id: str, leaving: asyncio.Task[Any]) -> None:
        if self._leaving.get(job_id) is leaving:
            del self._leaving[job_id]

    async def _request(self, name: str, payload: dict[str, Any], *, optional: bool = False) -> Any:
        """Send a request and return its acknowledgement; None if there is none.

        A missing acknowledgement marks the connection as lost, unless the request is optional.
        """
        sio = self._sio
        if sio is None or not sio.connected:
            return None
        try:
            answer = await sio.call(
                name, payload, namespace=self._namespace, timeout=ANSWER_TIMEOUT
            )
            return parse_acknowledgement(name, answer)
        except SocketIOError as exc:
            logger.debug("%s was not acknowledged: %r", name, exc)
        except InvalidMessage as exc:
            logger.warning("ignored an acknowledgement that violates the protocol: %s", exc)
        if not optional and self._sio is sio:
            self._lost.set()
        return None

    def _receive(self, event: str, payload: Any = None) -> None:
        try:
            if event == Joined.name:
                joined = parse_request(event, payload, Joined)
                if joined.job_id in self._followed:
                    self._followed[joined.job_id].begin(joined)
            elif event == Left.name:
                self._receive_left(parse_request(event, payload, Left))
            elif event in JOB_EVENTS:
                job_event = parse_event(event, payload)
                if job_event.job_id in self._followed:
                    self._followed[job_event.job_id].receive(job_event)
            elif event == TokenExpiring.name and callable(self._token):
                self._tasks.spawn(self._refresh())
        except InvalidMessage as exc:
            logger.warning("ignored an event that violates the protocol: %s", exc)

    def _receive_left(self, left: Left) -> None:
        followed = self._followed.get(left.job_id)
        if followed is None or not followed.joined:
            return  # it belongs to a previous join; a newer join is pending
        if left.code in RETRYABLE_CODES:
            followed.joined = False
            self._start(followed, self._join_after_pause(followed))
        else:
            self._end(followed, JoinRefused(left.job_id, left.code, left.message))

    async def _refresh(self) -> None:
        """Renew the token. If that fails, the server closes the connection when it expires."""
        sio, backoff = self._sio, Backoff(FIRST_DELAY, LONGEST_DELAY)
        while self._sio is sio and sio is not None and sio.connected:
            pause = backoff.delay()
            try:
                token = await self._get_token()
            except ConnectionRefused as exc:
                logger.warning(
                    "could not renew the token: the token function failed (%r); trying again",
                    exc.__cause__,
                )
            else:
                answer = await self._request("refresh_token", {"token": token}, optional=True)
                if not isinstance(answer, Refusal):
                    return
                if answer.code not in RETRYABLE_CODES:
                    logger.warning(
                        "the server refused the new token: %s (%s); it closes the connection when"
                        " the old one expires",
                        answer.message, answer.code,
                    )  # fmt: skip
                    return
                pause = pause_before_retry(answer, backoff.ceiling)
            await asyncio.sleep(pause)
            backoff.failed()


def _refusal(refusals: list[Any], exc: BaseException, url: str) -> ConnectionRefused:
    """Return the error of a refused connection, from the server's payload or HTTP status."""
    for refusal in refusals:
        data = refusal.get("data") if isinstance(refusal, dict) else None
        if isinstance(data, dict) and isinstance(data.get("code"), str):
            return ConnectionRefused(data["code"], str(data.get("message") or data["code"]))
    status = _status_of(exc)
    shown = mask_url(url)
    if status is None:
        return ConnectionRefused(
            "unreachable",
            f"the server at {shown} cannot be reached ({exc}): does it run, and is its URL right?",
        )
    code, hint = STATUS_HINTS.get(
        status, ("unreachable", "does a proxy in front of it forward WebSockets?")
    )
    path = f"/{check_server_url(url)}/socket.io/".replace("//", "/")
    return ConnectionRefused(
        code,
        f"the server at {shown} answered {status} instead of opening a WebSocket at {path}: {hint}",
    )


def _status_of(exc: BaseException | None) -> int | None:
    """Return the HTTP status of a refused WebSocket handshake; None if there was no response.

    python-engineio keeps it only in the context of its own exception.
    """
    while exc is not None:
        if isinstance(exc, WSServerHandshakeError):
            return exc.status
        exc = exc.__cause__ or exc.__context__
    return None
