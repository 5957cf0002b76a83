"""A client's connection to a server: its token, its requests, and its reconnects."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Literal

import socketio
from socketio.exceptions import SocketIOError

from jobcast.aio import BackgroundTasks, raise_lost_cancellation
from jobcast.client.address import check_namespace, socketio_path
from jobcast.client.handshake import connection_refused
from jobcast.client.retry import RETRYABLE_CODES, client_backoff, pause_before_retry
from jobcast.errors import ConnectionRefused, InvalidMessage
from jobcast.events import Hello, Refusal, TokenExpiring, parse_request
from jobcast.protocol import parse_acknowledgement

CLOSE_TIMEOUT: Final = 5.0  # seconds that a clean disconnect may take
ANSWER_TIMEOUT: Final = 20.0  # seconds that the server may take to acknowledge a request

#: The code of a connection error that the application's token function caused.
NO_TOKEN: Final = "token_unavailable"  # noqa: S105

Token = str | Callable[[], str | Awaitable[str]]
ConnectionState = Literal["connecting", "connected", "reconnecting", "closed"]

logger = logging.getLogger(__name__)


class Connection:
    """A connection to a server that reconnects automatically while it is open.

    Args:
        url: the server's URL.
        token: a token, or a function (plain or async) that returns one.
        namespace: the Socket.IO namespace.
        on_state: receives each new state. Its exceptions are logged.
        on_event: receives the name and the payload of each event, except those about the
            connection itself. It raises ``InvalidMessage`` if an event violates the protocol.
        on_reconnect: called after each reconnect.
        on_end: receives the reason when the connection is closed, or when it gives up because the
            server refuses the token.

    Raises:
        ValueError: the URL or the namespace is not valid.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        namespace: str,
        *,
        on_state: Callable[[ConnectionState], None],
        on_event: Callable[[str, Any], None],
        on_reconnect: Callable[[], None],
        on_end: Callable[[ConnectionRefused], None],
    ) -> None:
        self._url = url
        self._namespace = check_namespace(namespace)
        self._path = socketio_path(url)
        self._token = token
        self._on_state = on_state
        self._on_event = on_event
        self._on_reconnect = on_reconnect
        self._on_end = on_end
        self._state: ConnectionState = "closed"
        self._sio: socketio.AsyncClient | None = None
        self._backoff = client_backoff()  # between attempts to reconnect
        self._tasks = BackgroundTasks()
        self._bound: set[asyncio.Task[Any]] = set()  # tasks that end with the present connection
        self._lost = asyncio.Event()
        #: What the server offers; None until its ``hello`` arrives.
        self.features: frozenset[str] | None = None
        #: Why there is no connection and no attempt to reconnect; None while it is open.
        self.problem: ConnectionRefused | None = ConnectionRefused(
            "closed", "the client is not open"
        )

    async def open(self) -> None:
        """Connect, and reconnect until :meth:`close`.

        Raises:
            ConnectionRefused: the server refused the token or could not be reached, or the token
                function failed.
        """
        self._enter("connecting")
        try:
            await self._connect()
        except BaseException:
            self._enter("closed")
            raise
        self.problem = None
        self._tasks.spawn(self._keep_connected())

    def check_open(self) -> None:
        """Raise the error of a connection that is not open and does not reconnect."""
        if self.problem is not None:
            raise self.problem

    async def close(self) -> None:
        """Cancel all tasks and disconnect."""
        await self._tasks.cancel()
        await self._disconnect()
        self._end(ConnectionRefused("closed", "the client was closed"))
        self._enter("closed")

    def reconnect(self) -> None:
        """Drop the present connection and open another one."""
        self._lost.set()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task for requests. It is cancelled with the present connection."""
        task = self._tasks.spawn(coroutine)
        self._bound.add(task)
        task.add_done_callback(self._bound.discard)
        return task

    async def request(self, name: str, payload: dict[str, Any], *, optional: bool = False) -> Any:
        """Send a request and return its acknowledgement; None if there is none.

        A missing acknowledgement marks the connection as lost, unless the request is optional.
        """
        sio = self._sio
        if sio is None or not sio.connected:
            return None
        try:
            acknowledgement = parse_acknowledgement(
                name,
                await sio.call(name, payload, namespace=self._namespace, timeout=ANSWER_TIMEOUT),
            )
        except SocketIOError as exc:
            logger.debug("%s was not acknowledged: %r", name, exc)
        except InvalidMessage as exc:
            logger.warning("ignored an acknowledgement that violates the protocol: %s", exc)
        else:
            if not optional:
                self._backoff.reset()
            return acknowledgement
        if not optional and self._sio is sio:
            self._lost.set()
        return None

    async def ask(self, name: str, payload: dict[str, Any]) -> Any:
        """Send a request and return its acknowledgement; None if the connection ends before.

        Unlike :meth:`request`, any task may call it.
        """
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await self.request(name, payload))

        asking = self.spawn(ask())
        try:
            await asyncio.wait({asking})
        finally:
            asking.cancel()
        return answers[0] if answers else None

    async def _keep_connected(self) -> None:
        while True:
            await self._lost.wait()
            self._enter("reconnecting")
            await self._disconnect()
            await asyncio.sleep(self._backoff.delay())
            # A connection alone is not a success: the server may drop it after the first requests.
            # An acknowledged request resets the backoff.
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
                    self._end(exc)
                    return
                self._lost.set()
                continue
            self._on_reconnect()

    def _end(self, problem: ConnectionRefused) -> None:
        self.problem = problem
        self._on_end(problem)

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
        self.features = None
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
            raise connection_refused(refusals, exc, self._url) from None
        except asyncio.CancelledError:
            await self._disconnect()
            raise
        self._enter("connected")

    async def _disconnect(self) -> None:
        sio, self._sio = self._sio, None
        for task in self._bound:
            task.cancel()
        if sio is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await sio.disconnect()
            except TimeoutError:
                logger.debug("the server did not answer the disconnect within %s s", CLOSE_TIMEOUT)
            if sio.eio.http is not None:  # python-engineio leaves it open after a refusal
                await sio.eio.http.close()

    def _enter(self, state: ConnectionState) -> None:
        if state != self._state:
            self._state = state
            try:
                self._on_state(state)
            except Exception:
                logger.exception("on_state failed")

    def _receive(self, event: str, payload: Any = None) -> None:
        if event == TokenExpiring.name:
            if callable(self._token):
                self._tasks.spawn(self._refresh())
            return
        try:
            if event == Hello.name:
                self.features = frozenset(parse_request(event, payload, Hello).features)
            else:
                self._on_event(event, payload)
        except InvalidMessage as exc:
            logger.warning("ignored an event that violates the protocol: %s", exc)

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

    async def _refresh(self) -> None:
        """Renew the token. If that fails, the server closes the connection when it expires."""
        sio, backoff = self._sio, client_backoff()
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
                answer = await self.request("refresh_token", {"token": token}, optional=True)
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
