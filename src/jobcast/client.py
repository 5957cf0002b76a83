"""The asyncio client: follow a job from Python, wherever it runs. Needs ``jobcast[client]``.

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

from jobcast.cancellation import raise_lost_cancellation
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
    State,
    TokenExpiring,
    check_job_id,
    parse_acknowledgement,
    parse_event,
    parse_request,
)
from jobcast.masking import mask_url

FIRST_DELAY: Final = 0.1  # seconds before the first try to reconnect
LONGEST_DELAY: Final = 5.0  # seconds between two tries
LONGEST_PAUSE: Final = 60.0  # seconds that a server may have a request wait before its next try
LEFT_PAUSE: Final = 1.0  # seconds, at most, before a job is joined again that the server gave up
PAUSE_SPREAD: Final = 0.25  # of a pause: so much later, at most, is the next try
CLOSE_TIMEOUT: Final = 5.0  # seconds that an orderly end of the connection may take
ANSWER_TIMEOUT: Final = 20.0  # seconds that the server may take to answer a request
MEMORY: Final = 1000  # events of a job that are kept for those who follow it later

SCHEMES: Final = frozenset({"http", "https", "ws", "wss"})

#: Codes of refusals after which the same request may succeed.
AGAIN: Final = frozenset({"unavailable", "internal_error", "rate_limited"})
#: The code of a connection for which the application's function gave no token.
NO_TOKEN: Final = "token_unavailable"  # noqa: S105

#: Code and advice for HTTP statuses that answer a WebSocket's handshake.
STATUS_HINTS: Final = {
    403: ("forbidden", "is the path of its URL right, and does it let this client in?"),
    404: ("not_found", "is the path of its URL right?"),
    429: ("unreachable", "this address has too many connections; try again later"),
    503: (
        "unreachable",
        "it is full, about to end, or gone from behind its proxy; try later",
    ),
}

Token = str | Callable[[], str | Awaitable[str]]
ConnectionState = Literal["connecting", "connected", "reconnecting", "closed"]

logger = logging.getLogger(__name__)


def check_server_url(url: str) -> str:
    """The path of a server's URL, without slashes around it.

    Raises:
        ValueError: the URL is none.
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
    """Return a Socket.IO namespace.

    Raises:
        ValueError: it does not begin with a slash, or has a character that ends a namespace.
    """
    if not namespace.startswith("/") or any(mark in namespace for mark in ",?#"):
        raise ValueError(f"a namespace should begin with / and have no , ? or #, not {namespace!r}")
    return namespace


def pause_before_retry(refusal: Refusal, delay: float) -> float:
    """Return the seconds to wait before a refused request is sent again.

    Args:
        refusal: the answer; its ``retry_after`` is the least, up to ``LONGEST_PAUSE``.
        delay: the client's own backoff, the most where the server asks for nothing.
    """
    asked = 0.0 if refusal.retry_after is UNSET else refusal.retry_after
    least = min(LONGEST_PAUSE, max(0.0, asked))
    # Spread, so that the requests of one moment do not come back in one moment.
    return max(least * random.uniform(1, 1 + PAUSE_SPREAD), random.uniform(FIRST_DELAY, delay))


class _Follower:
    """Somebody who follows a job here: what they are told, and how far they were told it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[JobEvent | ClientError] = asyncio.Queue()
        self.seq = 0
        self.waits = False  # for the server to send the record from its beginning

    def tell(self, event: JobEvent) -> None:
        if not self.waits and event.seq > self.seq:
            self.seq = event.seq
            self.queue.put_nowait(event)


class _Followed:
    """A job that somebody follows here: how far it was seen, and who is told."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.epoch = ""
        self.seq = 0
        self.status: State | None = None
        self.asked = False  # to join: what comes before that is of a join that was left
        self.hears = False  # the latest request to join took effect
        self.joining: asyncio.Task[None] | None = None
        self.followers: list[_Follower] = []
        self._status_seq = 0  # up to where the status takes the events into account
        self._whole = False  # the latest request was for all of the record
        self._forgot = False  # events that whoever comes now would be sent by the server
        self._has_ended = False  # all that comes then of the same run is late lines
        self._events: deque[JobEvent] = deque(maxlen=MEMORY)
        self._progress: JobProgress | None = None

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for the record from its beginning."""
        return any(follower.waits for follower in self.followers)

    def ask(self) -> dict[str, Any]:
        """The request to join."""
        self.asked = True
        self.hears = False
        self._whole = not self.epoch or self.waiting
        after = {} if self._whole else {"after": {"epoch": self.epoch, "seq": self.seq}}
        return {"job_id": self.job_id, **after}

    def attach(self) -> _Follower:
        """Somebody new, who is told first what a newcomer is sent by the server too."""
        follower = _Follower()
        follower.waits = self._forgot
        seen = [*self._events, *([self._progress] if self._progress else [])]
        for event in sorted(seen, key=lambda event: event.seq):
            follower.tell(event)
        self.followers.append(follower)
        return follower

    def begin(self, joined: Joined) -> None:
        if not self.asked:
            return
        self.hears = True
        self.status, self._status_seq = joined.status, joined.seq
        if joined.epoch != self.epoch:
            self.epoch, self.seq = joined.epoch, 0
            self._forget()
            for follower in self.followers:
                follower.seq = 0
        elif not self._whole:
            return
        for follower in self.followers:
            follower.waits = False

    def receive(self, event: JobEvent) -> None:
        if not self.epoch:  # before there is a record there is no event
            return
        if event.seq > self.seq:
            self._remember(event)
        for follower in self.followers:
            follower.tell(event)

    def refuse(self, problem: ClientError) -> None:
        for follower in self.followers:
            follower.queue.put_nowait(problem)

    def _remember(self, event: JobEvent) -> None:
        self.seq = event.seq
        if event.seq > self._status_seq:
            self.status = event.state or self.status
        if self._has_ended and isinstance(event, JobStatus):
            # Another run. Of the one that ended the server tells a newcomer nothing either.
            self._forget()
        self._has_ended = self._has_ended or event.kind == TERMINAL
        if isinstance(event, JobProgress):
            self._progress = event
        else:
            self._forgot = self._forgot or len(self._events) == MEMORY
            self._events.append(event)

    def _forget(self) -> None:
        self._events.clear()
        self._progress = None
        self._forgot = False
        self._has_ended = False


class JobClient:
    """One connection to a jobcast server, kept up while the client is open.

    Args:
        url: of the server, as ``http://127.0.0.1:8000``. A path goes before ``/socket.io``.
        token: a token, or a function (plain or async) that gives one. A function is asked at each
            connection, and before a token expires. If it fails while the client is open it is
            asked again, for as long as it takes.
        on_state: is told when the state of the connection changes. What it raises is logged.
        namespace: the Socket.IO namespace that the server attaches jobcast to.

    Raises:
        ConnectionRefused: on entering; the server refused the token or could not be reached, or
            there was no token to be had (code ``token_unavailable``). From then on such trouble
            is a pause, and only a token that is refused ends it.
        ValueError: the URL or the namespace is none.
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
        self._tell = on_state or (lambda _: None)
        self._state: ConnectionState = "closed"
        self._sio: socketio.AsyncClient | None = None
        self._followed: dict[str, _Followed] = {}
        self._joining: set[asyncio.Task[None]] = set()
        self._leaving: dict[str, asyncio.Task[Any]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._delay = FIRST_DELAY  # seconds before the next try to reconnect, at most
        self._tasks: set[asyncio.Task[Any]] = set()
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
        self._keeper = asyncio.create_task(self._keep_connected())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [task for task in (self._keeper, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._disconnect()
        self._give_up(ConnectionRefused("closed", "the client was closed"))
        self._enter("closed")

    async def follow(self, job_id: str) -> AsyncGenerator[JobEvent, None]:
        """The events of a job: what is known of it, then what comes, and its end as the last.

        A connection that breaks is a pause: nothing is missing after it, and nothing comes twice.
        Followers of the same job share one join, and the last one leaves. One who comes later is
        told all that the server has too: it is asked for it again if that is more than is kept
        here.

        Raises:
            InvalidJobId: the id cannot be one.
            JoinRefused: the job may not be followed.
            ConnectionRefused: the token is not accepted any more, or the client is closed (code
                ``closed``).
        """
        check_job_id(job_id)
        if self._problem is not None:
            raise self._problem
        followed = self._followed.get(job_id)
        if followed is None:
            followed = self._followed[job_id] = _Followed(job_id)
            self._start(followed, self._join(followed))
        follower = followed.attach()
        if follower.waits:
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
        """Wait for the end of a job. Returns its result.

        Raises:
            JobFailed: the job ended with an error.
            JoinRefused, ConnectionRefused: as :meth:`follow`.
        """
        async with aclosing(self.follow(job_id)) as events:
            async for event in events:
                if isinstance(event, JobComplete):
                    return event.result
                if isinstance(event, JobError):
                    raise JobFailed(job_id, event.error, event.message, event.reason)
        raise AssertionError("a job ends with a terminal event")

    def status(self, job_id: str) -> State | None:
        """The state that a job is in; None while nobody follows it here, or it is not joined yet.

        It is right also where the event that led to it is not in the history any more.
        """
        followed = self._followed.get(job_id)
        return None if followed is None else followed.status

    async def _keep_connected(self) -> None:
        while True:
            await self._lost.wait()
            self._enter("reconnecting")
            await self._disconnect()
            await asyncio.sleep(random.uniform(FIRST_DELAY / 2, self._delay))
            # That there is a connection proves little: it may break of what is sent on it.
            self._delay = min(LONGEST_DELAY, 2 * self._delay)
            try:
                await self._connect()
            except ConnectionRefused as exc:
                if exc.code == NO_TOKEN:
                    logger.warning("there is no token to connect with yet: %r", exc.__cause__)
                elif exc.code.startswith("token_"):
                    self._give_up(exc)
                    return
                self._lost.set()
                continue
            for followed in self._followed.values():
                self._start(followed, self._join(followed))

    def _give_up(self, problem: ClientError) -> None:
        """Whoever follows a job, or wants to, is told."""
        self._problem = problem
        for followed in self._followed.values():
            followed.refuse(problem)
        self._followed.clear()

    async def _connect(self) -> None:
        try:
            await self._connect_once()
        except ConnectionRefused as exc:
            # A function may have given one that it had at hand: it is asked once more.
            if exc.code != "token_expired" or not callable(self._token):
                raise
            await self._connect_once()

    async def _connect_once(self) -> None:
        refusals: list[Any] = []
        # It would take the application's handler of Ctrl-C away, and cancel everything.
        sio = socketio.AsyncClient(
            reconnection=False, handle_sigint=False,
            # The server's settings bound what it sends, and they may be above aiohttp's 4 MiB.
            websocket_extra_options={"max_msg_size": 0},
        )  # fmt: skip
        sio.on("*", self._receive, namespace=self._namespace)
        sio.on("connect_error", refusals.append, namespace=self._namespace)
        sio.on("disconnect", lambda *_: self._lost.set(), namespace=self._namespace)
        self._lost.clear()
        self._sio = sio
        try:
            token = await self._ask_token()
            await sio.connect(
                self._url, auth={"token": token}, transports=["websocket"],
                wait_timeout=ANSWER_TIMEOUT, socketio_path=self._path,
                namespaces=[self._namespace],
            )  # fmt: skip
            raise_lost_cancellation()
        except ConnectionRefused:
            await self._disconnect()
            raise
        # python-engineio takes the code of a WebSocket that is closed for a packet: a TypeError.
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
                self._tell(state)
            except Exception:
                logger.exception("on_state failed")

    async def _disconnect(self) -> None:
        sio, self._sio = self._sio, None
        for request in (*self._joining, *self._leaving.values()):
            request.cancel()  # no join outlives its connection
        if sio is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await sio.disconnect()
            except TimeoutError:
                logger.debug("the server did not answer the end of the connection")
            if sio.eio.http is not None:  # it is left open when a connection is refused
                await sio.eio.http.close()

    async def _ask_token(self) -> str:
        """A token.

        Raises:
            ConnectionRefused: the application's function failed.
        """
        try:
            token = self._token() if callable(self._token) else self._token
            return await token if inspect.isawaitable(token) else token
        except Exception as exc:
            raise ConnectionRefused(NO_TOKEN, f"there is no token: {exc!r}") from exc

    def _start(self, followed: _Followed, join: Coroutine[Any, Any, None]) -> None:
        followed.joining = self._spawn(join)
        self._joining.add(followed.joining)
        followed.joining.add_done_callback(self._joining.discard)

    async def _join(self, followed: _Followed) -> None:
        job_id, delay = followed.job_id, FIRST_DELAY
        if job_id in self._leaving:
            # Until that is acknowledged, events of the former join may come.
            await asyncio.wait({self._leaving[job_id]})
        while self._followed.get(job_id) is followed:
            answer = await self._request("join_job", followed.ask())
            if answer is not None:
                self._delay = FIRST_DELAY
            if not isinstance(answer, Refusal):
                return  # it is joined, or the connection is lost, and the next one joins again
            if answer.code == "not_authenticated":
                self._lost.set()
                return
            if answer.code not in AGAIN:
                self._end(followed, JoinRefused(job_id, answer.code, answer.message))
                return
            await asyncio.sleep(pause_before_retry(answer, delay))
            delay = min(LONGEST_DELAY, 2 * delay)

    async def _join_after_pause(self, followed: _Followed) -> None:
        await asyncio.sleep(random.uniform(FIRST_DELAY, LEFT_PAUSE))
        await self._join(followed)

    def _end(self, followed: _Followed, problem: JoinRefused) -> None:
        """Raise ``problem`` in everybody who follows the job. A later follower joins anew."""
        if self._followed.get(followed.job_id) is followed:
            del self._followed[followed.job_id]
        followed.refuse(problem)

    async def _join_again(self, followed: _Followed, earlier: asyncio.Task[None] | None) -> None:
        """Have the record sent from its beginning to those who wait for it."""
        if earlier is not None:
            # Until that is answered, a `joined` may be of a request for less.
            await asyncio.wait({earlier})
        if followed.waiting:
            await self._join(followed)

    def _leave(self, job_id: str) -> None:
        # Nobody waits for the answer: whoever leaves may be in a hurry, or be cancelled.
        if self._problem is None:
            leaving = self._spawn(self._request_leave(job_id))
            self._leaving[job_id] = leaving
            leaving.add_done_callback(partial(self._left, job_id))

    async def _request_leave(self, job_id: str) -> None:
        """Leave a job. Give up if somebody follows it again before the server accepts that."""
        delay = FIRST_DELAY
        while True:
            answer = await self._request("leave_job", {"job_id": job_id}, optional=True)
            if not isinstance(answer, Refusal) or answer.code not in AGAIN:
                return
            await asyncio.sleep(pause_before_retry(answer, delay))
            if job_id in self._followed:
                return
            delay = min(LONGEST_DELAY, 2 * delay)

    def _left(self, job_id: str, leaving: asyncio.Task[Any]) -> None:
        if self._leaving.get(job_id) is leaving:
            del self._leaving[job_id]

    async def _request(self, name: str, payload: dict[str, Any], *, optional: bool = False) -> Any:
        """The answer to a request; None if there is no connection to ask it on."""
        sio = self._sio
        if sio is None or not sio.connected:
            return None
        try:
            answer = await sio.call(
                name, payload, namespace=self._namespace, timeout=ANSWER_TIMEOUT
            )
            return parse_acknowledgement(name, answer)
        except SocketIOError as exc:
            logger.debug("%s was not answered: %r", name, exc)
        except InvalidMessage as exc:
            logger.warning("the server does not keep the protocol: %s", exc)
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
                self._spawn(self._refresh())
        except InvalidMessage as exc:
            logger.warning("the server does not keep the protocol: %s", exc)

    def _receive_left(self, left: Left) -> None:
        followed = self._followed.get(left.job_id)
        if followed is None or not followed.hears:
            return  # it belongs to a former join: a newer one waits for its answer
        if left.code in AGAIN:
            followed.hears = False
            self._start(followed, self._join_after_pause(followed))
        else:
            self._end(followed, JoinRefused(left.job_id, left.code, left.message))

    async def _refresh(self) -> None:
        """Renew the token. If it fails the server ends the connection, and another is made."""
        sio, delay = self._sio, FIRST_DELAY
        while self._sio is sio and sio is not None and sio.connected:
            pause = random.uniform(FIRST_DELAY, delay)
            try:
                token = await self._ask_token()
            except ConnectionRefused as exc:
                logger.warning("the token could not be renewed yet: %r", exc.__cause__)
            else:
                answer = await self._request("refresh_token", {"token": token}, optional=True)
                if not isinstance(answer, Refusal):
                    return
                if answer.code not in AGAIN:
                    said = f"{answer.message} ({answer.code})"
                    logger.warning("the new token was refused: %s", said)
                    return
                pause = pause_before_retry(answer, delay)
            await asyncio.sleep(pause)
            delay = min(LONGEST_DELAY, 2 * delay)

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _refusal(refusals: list[Any], exc: BaseException, url: str) -> ConnectionRefused:
    """Return why a connection was refused: as the server puts it, or by its HTTP status."""
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
    """Return the HTTP status that answered a WebSocket's handshake; None if there was none.

    python-engineio keeps it only as the context of its own exception.
    """
    while exc is not None:
        if isinstance(exc, WSServerHandshakeError):
            return exc.status
        exc = exc.__cause__ or exc.__context__
    return None
