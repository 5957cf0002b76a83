"""The asyncio client, which follows jobs from Python. Needs ``jobcast[client]``.

>>> async with JobClient("http://127.0.0.1:8000", token) as client:
...     async for event in client.follow(job_id):
...         print(event)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from jobcast.aio import jittered
from jobcast.client.connection import Connection, ConnectionState, Token
from jobcast.client.followed import FollowedJob
from jobcast.client.retry import RETRYABLE_CODES, client_backoff, pause_before_retry
from jobcast.errors import ClientError, JobFailed, JoinRefused
from jobcast.events import (
    JOB_EVENTS,
    NO_INFO,
    TERMINAL,
    JobComplete,
    JobError,
    JobEvent,
    JobGap,
    JobInfo,
    Joined,
    Left,
    Refusal,
    check_job_id,
    parse_event,
    parse_request,
)

LEFT_PAUSE: Final = 1.0  # maximum seconds before a job that the server left is joined again


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
        self._followed: dict[str, FollowedJob] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._connection = Connection(
            url, token, namespace,
            on_state=on_state or (lambda _: None),
            on_event=self._receive,
            on_reconnect=self._join_all,
            on_end=self._refuse_all,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        await self._connection.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.close()

    @property
    def features(self) -> frozenset[str] | None:
        """What the server offers, such as ``join_job`` and ``http``.

        None until the server's ``hello`` arrives. It arrives before the first answer to a request.
        """
        return self._connection.features

    async def follow(self, job_id: str) -> AsyncGenerator[JobEvent | JobGap, None]:
        """Yield the events of a job: its history, then live events, up to its terminal event.

        A :class:`~jobcast.events.JobGap` takes the place of events that the server has trimmed.
        A status, level or reason can be one that this version does not know.

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
        if self._connection.problem is not None:
            raise self._connection.problem
        followed = self._followed.get(job_id)
        if followed is None:
            followed = self._followed[job_id] = FollowedJob(job_id)
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
                if isinstance(item, JobEvent) and item.kind == TERMINAL:
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

    def info(self, job_id: str) -> JobInfo:
        """Return the description of a job: its title, tags, task, queue, worker, parent and owner.

        It is empty if the job is not followed here or its join is pending.

        >>> client.info(job_id).title
        'March report'
        """
        followed = self._followed.get(job_id)
        return NO_INFO if followed is None else followed.info

    def _receive(self, event: str, payload: Any) -> None:
        if event == Joined.name:
            joined = parse_request(event, payload, Joined)
            if joined.job_id in self._followed:
                self._followed[joined.job_id].begin(joined)
        elif event == Left.name:
            self._receive_left(parse_request(event, payload, Left))
        elif event == JobGap.name:
            gap = parse_request(event, payload, JobGap)
            if gap.job_id in self._followed:
                self._followed[gap.job_id].skip(gap)
        elif event in JOB_EVENTS:
            job_event = parse_event(event, payload)
            if job_event.job_id in self._followed:
                self._followed[job_event.job_id].receive(job_event)

    def _receive_left(self, left: Left) -> None:
        followed = self._followed.get(left.job_id)
        if followed is None or not followed.joined:
            return  # it belongs to a previous join; a newer join is pending
        if left.code in RETRYABLE_CODES:
            followed.joined = False
            self._start(followed, self._join_after_pause(followed))
        else:
            self._refuse(followed, JoinRefused(left.job_id, left.code, left.message))

    def _refuse(self, followed: FollowedJob, problem: JoinRefused) -> None:
        """Raise ``problem`` in all followers of the job. A later follower joins again."""
        if self._followed.get(followed.job_id) is followed:
            del self._followed[followed.job_id]
        followed.refuse(problem)

    def _refuse_all(self, problem: ClientError) -> None:
        for followed in self._followed.values():
            followed.refuse(problem)
        self._followed.clear()

    def _start(self, followed: FollowedJob, join: Coroutine[Any, Any, None]) -> None:
        followed.joining = self._connection.spawn(join)

    def _join_all(self) -> None:
        for followed in self._followed.values():
            self._start(followed, self._join(followed))

    async def _join(self, followed: FollowedJob) -> None:
        job_id, backoff = followed.job_id, client_backoff()
        if job_id in self._leaving:
            # Events of the previous join may arrive until the server acknowledges the leave.
            await asyncio.wait({self._leaving[job_id]})
        while self._followed.get(job_id) is followed:
            answer = await self._connection.request("join_job", followed.join_request())
            if not isinstance(answer, Refusal):
                return  # joined; or the connection is lost, and the next connection joins again
            if answer.code == "not_authenticated":
                self._connection.reconnect()
                return
            if answer.code not in RETRYABLE_CODES:
                self._refuse(followed, JoinRefused(job_id, answer.code, answer.message))
                return
            await asyncio.sleep(pause_before_retry(answer, backoff.ceiling))
            backoff.failed()

    async def _join_after_pause(self, followed: FollowedJob) -> None:
        await asyncio.sleep(jittered(LEFT_PAUSE, 0.1, 1.0))
        await self._join(followed)

    async def _join_again(self, followed: FollowedJob, earlier: asyncio.Task[None] | None) -> None:
        """Join again to get a full replay, if a follower still waits for one."""
        if earlier is not None:
            # Until the earlier join is answered, a `joined` may belong to a partial replay.
            await asyncio.wait({earlier})
        if followed.awaits_replay:
            await self._join(followed)

    def _leave(self, job_id: str) -> None:
        # In the background: a follower that stops may be cancelled and must not wait.
        if self._connection.problem is None:
            leaving = self._connection.spawn(self._request_leave(job_id))
            self._leaving[job_id] = leaving
            leaving.add_done_callback(partial(self._left, job_id))

    async def _request_leave(self, job_id: str) -> None:
        """Leave a job. Give up if it is followed again before the server accepts the request."""
        backoff = client_backoff()
        while True:
            answer = await self._connection.request("leave_job", {"job_id": job_id}, optional=True)
            if not isinstance(answer, Refusal) or answer.code not in RETRYABLE_CODES:
                return
            await asyncio.sleep(pause_before_retry(answer, backoff.ceiling))
            if job_id in self._followed:
                return
            backoff.failed()

    def _left(self, job_id: str, leaving: asyncio.Task[None]) -> None:
        if self._leaving.get(job_id) is leaving:
            del self._leaving[job_id]
