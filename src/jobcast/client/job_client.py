"""The asyncio client, which follows jobs from Python. Needs ``jobcast[client]``.

>>> async with JobClient("http://127.0.0.1:8000", token) as client:
...     async for event in client.follow(job_id):
...         print(event)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from jobcast.client.cancel_job import (
    CANCEL_TIMEOUT,
    CancelResult,
    cancel_request,
    cancel_result,
    no_answer,
)
from jobcast.client.connection import Connection, ConnectionState, Token
from jobcast.client.feed import Feed, Feeds, open_feeds
from jobcast.client.feed_request import feed_request
from jobcast.client.followed import FollowedJob
from jobcast.client.memberships import MembershipKind, Memberships
from jobcast.client.retry import RETRYABLE_CODES, client_backoff, pause_before_retry
from jobcast.errors import CancelRefused, ClientError, JobFailed, JoinRefused
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
from jobcast.feeds import DEFAULT_FEED_LIMIT, FEED_EVENTS, MINE, JobSummary

#: Codes of refusals after which the client repeats a request to cancel a job.
REPEATED_CODES: Final = RETRYABLE_CODES | {"not_authenticated"}

JOBS: Final = MembershipKind(join="join_job", leave="leave_job", key="job_id", error=JoinRefused)


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
        self._connection = Connection(
            url, token, namespace,
            on_state=on_state or (lambda _: None),
            on_event=self._receive,
            on_reconnect=self._join_all,
            on_end=self._refuse_all,
        )  # fmt: skip
        self._jobs: Memberships[FollowedJob] = Memberships(self._connection, JOBS)
        self._feeds = Feeds(self._connection, partial(open_feeds, url, token, namespace))

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
        self._connection.check_open()
        followed = self._jobs.get(job_id)
        if followed is None:
            followed = FollowedJob(job_id)
            self._jobs.follow(job_id, followed)
        follower = followed.attach()
        if follower.awaits_replay:
            self._jobs.join_again(job_id, followed, followed.needs_replay)
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
            if not followed.followers:
                self._jobs.release(job_id, followed)

    async def result(self, job_id: str) -> Any:
        """Wait for the end of a job and return its result.

        Raises:
            JobFailed: the job ended with an error, or was cancelled: ``reason`` is ``cancelled``
                or ``revoked`` then.
            JoinRefused, ConnectionRefused: as for :meth:`follow`.
        """
        async with aclosing(self.follow(job_id)) as events:
            async for event in events:
                if isinstance(event, JobComplete):
                    return event.result
                if isinstance(event, JobError):
                    raise JobFailed(job_id, event.error, event.message, event.reason)
        raise AssertionError("a job ends with a terminal event")

    async def cancel(self, job_id: str, *, message: str = "") -> CancelResult:
        """Cancel a job, which the client need not follow.

        A request that a lost connection or a temporary refusal interrupts is repeated for 20
        seconds.

        Args:
            job_id: the job.
            message: why: a text for people, which the job and its followers receive. It has at most
                1,000 characters.

        Raises:
            CancelRefused: the server refused the request (``job_not_found``, ``not_cancellable``),
                or did not answer in time (``unavailable``).
            ConnectionRefused: as for :meth:`follow`.
            InvalidJobId: the job id is not valid.
            ValueError: the message is too long.

        >>> (await client.cancel(job_id, message="wrong file")).outcome
        'requested'
        """
        request = cancel_request(job_id, message)
        refusals: list[Refusal] = []
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT):
                return await self._cancel(request, refusals)
        except TimeoutError:
            self._connection.check_open()
            raise no_answer(job_id, refusals[-1] if refusals else None) from None

    async def _cancel(self, request: dict[str, Any], refusals: list[Refusal]) -> CancelResult:
        """Send a request until the server accepts it, and collect temporary refusals."""
        backoff = client_backoff()
        while True:
            self._connection.check_open()
            answer = await self._connection.ask("cancel_job", request)
            if answer is None:  # the connection is lost
                pause = backoff.delay()
            elif not isinstance(answer, Refusal):
                return cancel_result(answer)
            elif answer.code in REPEATED_CODES:
                refusals.append(answer)
                pause = pause_before_retry(answer, backoff.ceiling)
            else:
                raise CancelRefused(request["job_id"], answer.code, answer.message)
            await asyncio.sleep(pause)
            backoff.failed()

    def status(self, job_id: str) -> str | None:
        """Return the state of a job; None if it is not followed here or its join is pending.

        The state is correct even if the history no longer contains the event that led to it.
        """
        followed = self._jobs.get(job_id)
        return None if followed is None else followed.status

    def info(self, job_id: str) -> JobInfo:
        """Return the description of a job: its title, tags, task, queue, worker, parent and owner.

        It is empty if the job is not followed here or its join is pending.

        >>> client.info(job_id).title
        'March report'
        """
        followed = self._jobs.get(job_id)
        return NO_INFO if followed is None else followed.info

    def feed(
        self,
        name: str = MINE,
        *,
        status: str | Iterable[str] | None = None,
        tag: str | None = None,
        task: str | None = None,
        owner: str | None = None,
        since: datetime | None = None,
        limit: int = DEFAULT_FEED_LIMIT,
    ) -> Feed:
        """Return a live list of jobs, to be opened with ``async with``.

        Args:
            name: ``mine``, the jobs of the token's subject; ``owner:SUBJECT``, ``tag:TAG`` or
                ``all``, if the server allows them.
            status: one state or several; ``running`` and ``failed`` stand for all such states.
            tag: a tag of the jobs.
            task: the name of the jobs' Celery task.
            owner: the owner of the jobs.
            since: only jobs that were created then or later. It needs a time zone.
            limit: the number of jobs that the list begins with, at most 10,000: the newest ones.

        Raises:
            ValueError: an argument is not valid.

        >>> async with client.feed("mine", status="running") as feed:
        ...     for job in feed.jobs:
        ...         print(job.job_id, job.status)
        ...     async for change in feed:
        ...         print(change)
        """
        request = feed_request(
            name, status=status, tag=tag, task=task, owner=owner, since=since, limit=limit
        )
        return Feed(request, self._feeds)

    async def jobs(
        self,
        feed: str = MINE,
        *,
        status: str | Iterable[str] | None = None,
        tag: str | None = None,
        task: str | None = None,
        owner: str | None = None,
        since: datetime | None = None,
        limit: int = DEFAULT_FEED_LIMIT,
    ) -> list[JobSummary]:
        """Return jobs, the newest first, as :meth:`feed` shows them now.

        Args:
            feed: the name of the feed. The other arguments are those of :meth:`feed` too.

        Raises:
            ValueError: an argument is not valid.
            FeedRefused, ConnectionRefused: as for :class:`Feed`.

        >>> for job in await client.jobs(status=["running", "failed"]):
        ...     print(job.job_id, job.status)
        """
        async with self.feed(
            feed, status=status, tag=tag, task=task, owner=owner, since=since, limit=limit
        ) as opened:
            return list(opened.jobs[:limit])

    def _receive(self, event: str, payload: Any) -> None:
        if event == Joined.name:
            joined = parse_request(event, payload, Joined)
            if (followed := self._jobs.get(joined.job_id)) is not None:
                followed.begin(joined)
        elif event == Left.name:
            left = parse_request(event, payload, Left)
            self._jobs.left(left.job_id, left.code, left.message)
        elif event == JobGap.name:
            gap = parse_request(event, payload, JobGap)
            if (followed := self._jobs.get(gap.job_id)) is not None:
                followed.skip(gap)
        elif event in JOB_EVENTS:
            job_event = parse_event(event, payload)
            if (followed := self._jobs.get(job_event.job_id)) is not None:
                followed.receive(job_event)
        elif event in FEED_EVENTS:
            self._feeds.receive(event, payload)

    def _join_all(self) -> None:
        self._jobs.join_all()
        self._feeds.join_all()

    def _refuse_all(self, problem: ClientError) -> None:
        self._jobs.refuse_all(problem)
        self._feeds.refuse_all(problem)
