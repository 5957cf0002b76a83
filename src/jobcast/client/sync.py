"""The client for code without an event loop: scripts, views, commands, notebooks, tests.

It uses the HTTP interface of the server and starts no thread. Needs ``jobcast[client]``.

>>> with JobClient("http://127.0.0.1:8000", token) as client:
...     result = client.wait(job_id, timeout=60)
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import closing
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from jobcast.client.attempts import Attempts
from jobcast.client.cancel_job import (
    CANCEL_TIMEOUT,
    CancelResult,
    cancel_request,
    cancel_result,
    no_answer,
)
from jobcast.client.event_lines import read_messages
from jobcast.client.feed_request import feed_request
from jobcast.client.http import (
    ANSWER_TIMEOUT,
    EVENT_STREAM,
    JSON,
    SILENCE,
    HttpConnection,
    SyncToken,
    Unavailable,
    refusals_as,
)
from jobcast.client.job_state import JobState
from jobcast.client.stream_position import StreamPosition
from jobcast.client.sync_feed import Feed, read_jobs
from jobcast.errors import CancelRefused, ConnectionRefused, JobNotEnded, JoinRefused
from jobcast.events import (
    CancelAccepted,
    JobEvent,
    JobGap,
    TokenExpiring,
    check_job_id,
    job_path,
)
from jobcast.feeds import DEFAULT_FEED_LIMIT, MINE, JobSummary

WAIT: Final = 50.0  # seconds that one request waits for the end of a job; proxies often cut at 60
GRACE: Final = 10.0  # seconds that the answer may take after that

Events = Generator[JobEvent | JobGap, None, None]

__all__ = ["CancelResult", "Feed", "JobClient", "JobState"]


class JobClient:
    """A client of a jobcast server for code without an event loop. Threads may share it.

    Args:
        url: the server's URL, such as ``http://127.0.0.1:8000``. A path precedes ``/jobs``.
        token: a token, or a function that returns one. The client calls the function for its
            first request, before the token expires, and when the server refuses the token.
        http: an ``httpx.Client`` that sends the requests, for example with a proxy or a private
            certificate authority. :meth:`close` does not close it.

    Raises:
        ValueError: the URL is not valid.

    >>> with JobClient("http://127.0.0.1:8000", token) as client:
    ...     for event in client.follow(job_id):
    ...         print(event)
    """

    def __init__(self, url: str, token: SyncToken, *, http: httpx.Client | None = None) -> None:
        self._http = http or httpx.Client()
        self._owns_http = http is None
        self._connection = HttpConnection(url, token, self._http)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the server."""
        if self._owns_http:
            self._http.close()

    def state(self, job_id: str, *, logs: int = 0) -> JobState:
        """Return the state of a job. A job of the token that has no event yet is ``pending``.

        Args:
            job_id: the job.
            logs: the number of latest log lines to include, at most 1,000.

        Raises:
            InvalidJobId: the job id is not valid.
            JoinRefused: the job does not exist, or you may not follow it.
            ConnectionRefused: the server refused the token, cannot be reached, or cannot answer.
        """
        check_job_id(job_id)
        try:
            return self._state(job_id, f"?logs={logs}", ANSWER_TIMEOUT)
        except Unavailable as exc:
            raise exc.problem from exc.__cause__

    def wait(self, job_id: str, timeout: float | None = None) -> Any:
        """Wait for the end of a job and return its result.

        Once the server has answered, the client waits through broken connections and restarts of
        the server.

        Args:
            job_id: the job.
            timeout: the number of seconds to wait; None for no limit, also for a job that a token
                allows and that is never sent. A server that does not answer delays the end of the
                call by up to 20 seconds.

        Raises:
            JobFailed: the job ended with an error, or was cancelled: ``reason`` is ``cancelled``
                or ``revoked`` then.
            JobNotEnded: the job did not end in time. It is also a ``TimeoutError``.
            InvalidJobId, JoinRefused, ConnectionRefused: as for :meth:`state`.
        """
        check_job_id(job_id)
        attempts = Attempts(self._connection, timeout)
        status: str | None = None
        while True:
            seconds = min(WAIT, attempts.remaining)
            began = time.monotonic()
            try:
                state = self._state(job_id, f"?wait={seconds:.3f}", seconds + GRACE)
            except Unavailable as exc:
                attempts.pause(exc)
            else:
                if state.has_ended:
                    return state.outcome()
                status = state.status
                if time.monotonic() - began < seconds / 2:
                    # The server ends a wait early if it is about to exit or the token expires.
                    self._connection.renew_token()
                    attempts.pause(_ended_early("the wait"))
                else:
                    attempts.succeeded()
            if not attempts.remaining:
                raise JobNotEnded(job_id, status, timeout or 0.0) from attempts.problem

    def follow(self, job_id: str, *, after: str | None = None) -> Events:
        """Yield the events of a job: its history, then live events, up to its terminal event.

        A :class:`~jobcast.events.JobGap` takes the place of events that the server has trimmed. A
        lost connection only delays events: none is missed or repeated after the reconnect.

        Args:
            job_id: the job.
            after: the ``cursor`` of a :class:`JobState`, to skip the events that led to it. If the
                job has ended there, no event follows.

        Raises:
            ValueError: ``after`` is not a cursor.
            InvalidJobId: the job id is not valid.
            JoinRefused: the job does not exist, or you may not, or no longer, follow it.
            ConnectionRefused: the server refused the token, or could not be reached at first.
        """
        position = StreamPosition(check_job_id(job_id), after)
        return self._follow(position, Attempts(self._connection, None))

    def cancel(self, job_id: str, *, message: str = "") -> CancelResult:
        """Cancel a job.

        Once the server has answered, the request is repeated for 20 seconds after failures that may
        be temporary.

        Args:
            job_id: the job.
            message: why: a text for people, which the job and its followers receive. It has at most
                1,000 characters.

        Raises:
            CancelRefused: the server refused the request (``job_not_found``, ``not_cancellable``),
                or did not answer in time (``unavailable``).
            ConnectionRefused: the server refused the token, or could not be reached at first.
            InvalidJobId: the job id is not valid.
            ValueError: the message is too long.

        >>> client.cancel(job_id, message="wrong file").outcome
        'requested'
        """
        request = cancel_request(job_id, message)
        attempts = Attempts(self._connection, CANCEL_TIMEOUT)
        while attempts.remaining:
            try:
                return self._cancel(request)
            except Unavailable as exc:
                attempts.pause(exc)
        raise no_answer(job_id, attempts.problem) from attempts.problem

    def _cancel(self, request: dict[str, Any]) -> CancelResult:
        """Send one request.

        Raises:
            Unavailable: repeating the request may succeed.
        """
        job_id = request["job_id"]
        path = f"{job_path(job_id)}/cancel"
        body = {name: value for name, value in request.items() if name != "job_id"}
        with (
            refusals_as(CancelRefused, job_id),
            self._connection.open(path, JSON, {}, silence=ANSWER_TIMEOUT, body=body) as response,
        ):
            try:
                return cancel_result(msgspec.json.decode(response.read(), type=CancelAccepted))
            except msgspec.MsgspecError:
                raise self._connection.foreign_answer(response) from None

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
        """Return a live list of jobs, to be opened with ``with``.

        The arguments are those of :meth:`jobcast.client.JobClient.feed`.

        Raises:
            ValueError: an argument is not valid.

        >>> with client.feed("mine", status="running") as feed:
        ...     print(len(feed.jobs), "jobs")
        ...     for change in feed:
        ...         print(change)
        """
        request = feed_request(
            name, status=status, tag=tag, task=task, owner=owner, since=since, limit=limit
        )
        return Feed(request, self._connection)

    def jobs(
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
        """Return jobs, the newest first.

        Args:
            feed: the name of the feed. The other arguments are those of
                :meth:`jobcast.client.JobClient.feed`.

        Raises:
            ValueError: an argument is not valid.
            FeedRefused: the server refused the feed.
            ConnectionRefused: the server refused the token, cannot be reached, or cannot answer.

        >>> for job in client.jobs(status=["running", "failed"]):
        ...     print(job.job_id, job.status)
        """
        request = feed_request(
            feed, status=status, tag=tag, task=task, owner=owner, since=since, limit=limit
        )
        try:
            return read_jobs(self._connection, request)
        except Unavailable as exc:
            raise exc.problem from exc.__cause__

    def _follow(self, position: StreamPosition, attempts: Attempts) -> Events:
        while not position.has_ended:
            try:
                with closing(self._stream(position)) as items:
                    for item in items:
                        attempts.succeeded()
                        yield item
                        if position.has_ended:
                            return
            except Unavailable as exc:
                attempts.pause(exc)

    def _stream(self, position: StreamPosition) -> Events:
        """Yield the events of one stream, which begins at a position and moves it.

        Raises:
            Unavailable: the stream ended before the job.
        """
        headers = {} if position.cursor is None else {"Last-Event-ID": position.cursor}
        path = f"{job_path(position.job_id)}/events"
        with (
            refusals_as(JoinRefused, position.job_id),
            self._connection.open(path, EVENT_STREAM, headers, silence=SILENCE) as response,
        ):
            if response.status_code == httpx.codes.NO_CONTENT:
                position.has_ended = True
                return
            for message in read_messages(response.iter_bytes()):
                if message.name == TokenExpiring.name:
                    self._connection.renew_token()
                item = position.receive(message)
                if item is not None:
                    yield item
        raise _ended_early("the stream")

    def _state(self, job_id: str, query: str, silence: float) -> JobState:
        with (
            refusals_as(JoinRefused, job_id),
            self._connection.open(job_path(job_id) + query, JSON, {}, silence=silence) as response,
        ):
            try:
                return msgspec.json.decode(response.read(), type=JobState)
            except msgspec.MsgspecError:
                raise self._connection.foreign_answer(response) from None


def _ended_early(what: str) -> Unavailable:
    return Unavailable(ConnectionRefused("unreachable", f"the server ended {what} before the job"))
