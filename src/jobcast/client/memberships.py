"""The jobs or the feeds that a client has joined, and the requests that keep them joined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec import Struct

from jobcast.aio import jittered
from jobcast.client.connection import Connection
from jobcast.client.retry import RETRYABLE_CODES, client_backoff, pause_before_retry
from jobcast.errors import ClientError
from jobcast.events import Refusal

LEFT_PAUSE: Final = 1.0  # maximum seconds before a client joins again what the server left


class Followed(Protocol):
    """A job or a feed that a client follows."""

    joined: bool  # the latest join request took effect
    joining: asyncio.Task[None] | None

    def join_request(self) -> dict[str, Any]: ...
    def refuse(self, problem: ClientError) -> None: ...


F = TypeVar("F", bound=Followed)


class MembershipKind(Struct, frozen=True):
    """The requests about jobs, or those about feeds."""

    join: str
    leave: str
    key: str  # the field with the name of the job or the feed
    error: Callable[[str, str, str], ClientError]  # of a name, a code and a message


class Memberships(Generic[F]):
    """The jobs or the feeds that a client follows on one connection, by their names.

    Args:
        connection: the connection of the requests.
        kind: the requests.
        on_accepted: receives the server's acknowledgement of each join.
    """

    def __init__(
        self,
        connection: Connection,
        kind: MembershipKind,
        on_accepted: Callable[[F, Struct], None] = lambda _followed, _answer: None,
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._on_accepted = on_accepted
        self._followed: dict[str, F] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    def get(self, name: str) -> F | None:
        """Return the job or feed that is followed under a name; None if there is none."""
        return self._followed.get(name)

    def follow(self, name: str, followed: F) -> None:
        """Join, now and after each reconnect."""
        self._followed[name] = followed
        self._start(followed, self._join(name, followed))

    def release(self, name: str, followed: F) -> None:
        """Leave, unless the server has refused it or has left it."""
        if self._followed.get(name) is followed:
            del self._followed[name]
            self._leave(name)

    def join_again(self, name: str, followed: F, needed: Callable[[], bool]) -> None:
        """Join again after the present join is answered, if it is still needed then."""
        self._start(followed, self._join_again(name, followed, followed.joining, needed))

    def left(self, name: str, code: str, message: str) -> None:
        """Note that the server has left a job or a feed. A later follower joins again."""
        followed = self._followed.get(name)
        if followed is None or not followed.joined:
            return  # it belongs to a previous join; a newer join is pending
        if code in RETRYABLE_CODES:
            followed.joined = False
            self._start(followed, self._join_after_pause(name, followed))
        else:
            self._refuse(name, followed, code, message)

    def join_all(self) -> None:
        """Join everything on a new connection."""
        for name, followed in self._followed.items():
            self._start(followed, self._join(name, followed))

    def refuse_all(self, problem: ClientError) -> None:
        """Raise ``problem`` in all followers."""
        for followed in self._followed.values():
            followed.refuse(problem)
        self._followed.clear()

    def _refuse(self, name: str, followed: F, code: str, message: str) -> None:
        if self._followed.get(name) is followed:
            del self._followed[name]
        followed.refuse(self._kind.error(name, code, message))

    def _start(self, followed: F, join: Coroutine[Any, Any, None]) -> None:
        followed.joining = self._connection.spawn(join)

    async def _join(self, name: str, followed: F) -> None:
        backoff = client_backoff()
        if name in self._leaving:
            # Events of the previous join may arrive until the server acknowledges the leave.
            await asyncio.wait({self._leaving[name]})
        while self._followed.get(name) is followed:
            answer = await self._connection.request(self._kind.join, followed.join_request())
            if answer is None:
                return  # the connection is lost, and the next connection joins again
            if not isinstance(answer, Refusal):
                self._on_accepted(followed, answer)
                return
            if answer.code == "not_authenticated":
                self._connection.reconnect()
                return
            if answer.code not in RETRYABLE_CODES:
                self._refuse(name, followed, answer.code, answer.message)
                return
            await asyncio.sleep(pause_before_retry(answer, backoff.ceiling))
            backoff.failed()

    async def _join_after_pause(self, name: str, followed: F) -> None:
        await asyncio.sleep(jittered(LEFT_PAUSE, 0.1, 1.0))
        await self._join(name, followed)

    async def _join_again(
        self,
        name: str,
        followed: F,
        earlier: asyncio.Task[None] | None,
        needed: Callable[[], bool],
    ) -> None:
        if earlier is not None:
            # Until the earlier join is answered, messages may belong to it.
            await asyncio.wait({earlier})
        if needed():
            await self._join(name, followed)

    def _leave(self, name: str) -> None:
        # In the background: a follower that stops may be cancelled and must not wait.
        if self._connection.problem is None:
            leaving = self._connection.spawn(self._request_leave(name))
            self._leaving[name] = leaving
            leaving.add_done_callback(partial(self._has_left, name))

    async def _request_leave(self, name: str) -> None:
        """Leave. Give up if the name is followed again before the server accepts the request."""
        backoff = client_backoff()
        while True:
            answer = await self._connection.request(
                self._kind.leave, {self._kind.key: name}, optional=True
            )
            if not isinstance(answer, Refusal) or answer.code not in RETRYABLE_CODES:
                return
            await asyncio.sleep(pause_before_retry(answer, backoff.ceiling))
            if name in self._followed:
                return
            backoff.failed()

    def _has_left(self, name: str, leaving: asyncio.Task[None]) -> None:
        if self._leaving.get(name) is leaving:
            del self._leaving[name]
