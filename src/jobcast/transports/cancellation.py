"""Cancelled jobs: an optional capability of transports.

A request to cancel a job is kept in the record of the job. It covers the sending of the current run
(see :mod:`jobcast.transports.runs`): retries, redeliveries and a task that replaces the run's are
covered too, but a job that is sent again is not. A job that is not running ends at once. A running
job learns of the request from the answers to its publisher, and from the control channel; it ends
with its next status at the latest.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from jobcast.errors import JobCancelled
from jobcast.events import JobError, JobStatus, Time, now, packet_head
from jobcast.transports.runs import Run, first_sending

# A transport may keep requests for messages that a worker receives later. It then also passes on
# "kept" requests, which may still have no effect, and are "withdrawn" in that case.
Outcome = Literal["cancelled", "requested", "already_ended", "kept", "withdrawn"]
Answer = Literal["cancelled", "requested", "already_ended", "not_cancellable", "job_not_found"]

WAITING_STATES: Final = frozenset({"pending", "queued", "retrying"})  # no worker runs the job
DEFAULT_MESSAGE: Final = "Cancelled"
MAX_NOTICES: Final = 10_000  # that wait for a listener's callback
KEPT_FOR: Final = 24 * 3600  # seconds for which a request is kept outside of the job's record
MAX_KEPT: Final = 10_000  # requests that are kept outside of their jobs' records

_TIMESTAMP: Final = re.compile(r'"timestamp":"[^"]*"')

logger = logging.getLogger(__name__)


class Cancellation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to cancel a job."""

    job_id: str
    by: str | None = None  # the subject who asked for it; None for a process of the application
    message: str = ""  # for people
    # The owner that the rights of the subject were checked for; unset if any owner's job may be
    # cancelled. It is a condition of the request, which is kept without it.
    owner: str | UnsetType | None = UNSET
    outcome: Outcome | None = None  # on the control channel
    sending: str = ""  # the sending that the request covers; the store sets it
    task: str = ""  # the name of the job's task, if the store knows it; on the control channel
    requested_at: Time = field(default_factory=now)

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes | str) -> Cancellation:
        """Parse a message of the control channel.

        Raises:
            ValueError: the message is not a cancellation.
        """
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ValueError(f"not a cancellation: {exc}") from None

    def covers(self, run: Run) -> bool:
        """Return whether the request covers a run, whose sending is known."""
        return first_sending(run.sending) == first_sending(self.sending)

    @property
    def is_for_later_messages(self) -> bool:
        """Whether it is kept for messages that a worker receives later, or withdrawn from there."""
        return self.outcome in ("kept", "withdrawn")

    def applies_to(self, owner: str | None) -> bool:
        """Return whether the rights were checked for a job with this owner."""
        return self.owner is UNSET or self.owner == owner

    @property
    def error(self) -> JobCancelled:
        """The exception that ends a run that the request covers."""
        return JobCancelled(self.message or DEFAULT_MESSAGE, self.by)

    @property
    def request_head(self) -> str:
        """The packet of the event that the running job is asked to stop, up to its ``seq``."""
        return packet_head(
            JobStatus(
                job_id=self.job_id,
                timestamp=self.requested_at,
                status="cancelling",
                message=self.message or UNSET,
                by=UNSET if self.by is None else self.by,
            )
        )

    @property
    def ending_head(self) -> str:
        """The packet of the job's terminal event, up to its ``seq``."""
        return packet_head(
            JobError(
                job_id=self.job_id,
                timestamp=self.requested_at,
                error="JobCancelled",
                message=self.message or DEFAULT_MESSAGE,
                reason="cancelled",
                by=UNSET if self.by is None else self.by,
            )
        )


def with_timestamp(head: str, timestamp: str) -> str:
    """Return the head of a packet with another timestamp, or as it is if that is empty."""
    return _TIMESTAMP.sub(f'"timestamp":"{timestamp}"', head, count=1) if timestamp else head


class CancelAnswer(Struct, frozen=True, kw_only=True):
    """The answer of the store to a request.

    ``terminates`` is for ``requested``: whether the worker terminates a run that does not end.
    """

    outcome: Answer
    terminates: bool = False

    @property
    def is_accepted(self) -> bool:
        """Whether the job has ended because of the request, or is asked to stop."""
        return self.outcome in ("cancelled", "requested")


@runtime_checkable
class SupportsCancellation(Protocol):
    """A source that can cancel jobs. Optional."""

    async def cancel(self, cancellation: Cancellation) -> CancelAnswer:
        """Cancel a job, or ask its running worker to stop.

        A job that is not running ends at once; a running one gets the state ``cancelling``. A
        repeated request publishes no event: its outcome is ``requested`` while the job runs, and
        ``already_ended`` after its end. For a job with another owner than the request names, the
        outcome is ``job_not_found``.

        Raises:
            TransportUnavailable: the request may not have been stored; repeating it does no harm.
        """


OnCancellation = Callable[[Cancellation], None]


class CancellationListener(Protocol):
    """A subscription to the control channel."""

    def close(self) -> None:
        """End the subscription. The callback may still be running for a moment."""


@runtime_checkable
class SupportsCancellationNotices(Protocol):
    """A publisher that learns of cancelled jobs. Optional.

    ``on_cancelled`` is called in the publisher's thread after a publish or a renewal whose answer
    says that a job is covered by a request; for one request possibly many times. When ``publish``
    has returned for a ``started`` event, it has been called if a request took effect before.
    """

    on_cancelled: OnCancellation | None

    def listen(self, on_cancellation: OnCancellation) -> CancellationListener:
        """Call a function, in a thread of its own, with each accepted request.

        The subscription survives interruptions. Requests of the meantime are missed: the answers to
        the publisher make up for them. After a fork, the child has no subscription.
        """


class Notices:
    """Notices that wait for a callback, which a daemon thread calls."""

    def __init__(self, on_cancellation: OnCancellation, name: str) -> None:
        self._on_cancellation = on_cancellation
        self._waiting: queue.Queue[Cancellation | None] = queue.Queue(MAX_NOTICES)
        self._is_closed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, cancellation: Cancellation) -> None:
        """Add a notice, from any thread; never blocks."""
        try:
            self._waiting.put_nowait(cancellation)
        except queue.Full:
            logger.warning(
                "job %s: dropped the notice of its cancellation, because %d others wait; the job"
                " learns of it by its next publish or renewal", cancellation.job_id, MAX_NOTICES,
            )  # fmt: skip

    def close(self) -> None:
        self._is_closed = True
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return  # the thread sees that this is closed before it waits again

    def _run(self) -> None:
        while not self._is_closed and (cancellation := self._waiting.get()) is not None:
            notify(self._on_cancellation, cancellation)


def notify(on_cancellation: OnCancellation | None, cancellation: Cancellation) -> None:
    """Call the function, and log its exceptions: the caller has other work to do."""
    if on_cancellation is None:
        return
    try:
        on_cancellation(cancellation)
    except Exception:
        logger.exception("job %s: the handler of its cancellation failed", cancellation.job_id)
