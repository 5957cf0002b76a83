"""The types that all transports share, and the decisions that are the same for each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, Self, runtime_checkable

from msgspec import Struct

from jobcast.events import (
    INFO,
    NO_INFO,
    STATUS,
    TERMINAL,
    Cursor,
    JobEvent,
    JobInfo,
    Kind,
    check_published,
    encode_info,
    info_of,
    packet_head,
)
from jobcast.feeds import JobSummary
from jobcast.transports.runs import UNKNOWN_RUN, Run

DEFAULT_HISTORY_TTL: Final = 3600  # seconds after the last event of a job that has ended
DEFAULT_HISTORY_SIZE: Final = 1000  # log lines per job
STATUSES_RETAINED: Final = 100  # statuses and terminal events per job
DEFAULT_FEED_SIZE: Final = 1000  # jobs per feed; ALL_FEED_FACTOR times as many in ``all``
ALL_FEED_FACTOR: Final = 10
DEFAULT_SUMMARY_TTL: Final = 7 * 24 * 3600  # seconds that a job stays in its feeds after its end
ACTIVE_TTL: Final = 24 * 3600  # seconds; a running job may publish nothing for hours
NO_RECORD: Final = ""  # the epoch of a job without a record
MAX_TRANSIT: Final = 3600  # seconds that an event may take to reach the store, as after an outage

Required = Literal["", "pending", "queued", "started", "stalled"]


class Retention(Struct, frozen=True, kw_only=True):
    """How many events of a job are kept, and for how long.

    Log lines have a bound of their own, so a long log does not trim the statuses.
    """

    ttl: int = DEFAULT_HISTORY_TTL
    size: int = DEFAULT_HISTORY_SIZE  # log lines
    statuses: int = STATUSES_RETAINED  # statuses and terminal events
    feed_size: int = DEFAULT_FEED_SIZE  # jobs per feed; 0: the store keeps no feeds
    summary_ttl: int = DEFAULT_SUMMARY_TTL  # seconds that an ended job stays in its feeds

    @property
    def active_ttl(self) -> int:
        """Return for how many seconds an unfinished job's record outlives its latest event."""
        return max(self.ttl, ACTIVE_TTL)


class Origin(Struct, frozen=True):
    """The owner and the run that publish an event."""

    owner: str | None = None  # the subject whose token may follow the job
    run: Run = UNKNOWN_RUN
    # The last event of the previous attempt as a Predecessor's text, or "". The retry may run on
    # another worker, which may reach the transport before the previous worker does.
    after: str = ""


NO_ORIGIN: Final = Origin()


class Predecessor(NamedTuple):
    """An event of another publisher that has to be stored first.

    >>> Predecessor.parse("3f9a0c21d4e8 17 1767225600")
    Predecessor(publisher='3f9a0c21d4e8', number=17, published_at=1767225600)
    """

    publisher: str = ""
    number: int = 0  # 0: there is no predecessor
    published_at: int = 0  # seconds since 1970, by the publisher's clock; 0 if unknown

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of a predecessor; an empty text means that there is none.

        Raises:
            ValueError: the text is not ``<publisher> <number> [<published at>]``.
        """
        publisher, _, numbers = text.partition(" ")
        number, _, published_at = numbers.partition(" ")
        return cls(publisher, int(number or 0), int(published_at or 0))

    def __str__(self) -> str:
        return f"{self.publisher} {self.number} {self.published_at}"

    def may_be_in_transit(self, now: float) -> bool:
        """Return whether the event may still arrive when the job has no record."""
        return now - self.published_at < MAX_TRANSIT


class Outgoing(Struct, frozen=True, kw_only=True):
    """An event on its way to the store, encoded except for its ``seq``."""

    job_id: str
    kind: Kind
    head: str
    state: str | None = None  # the job's state after the event, if the event changes it
    owner: str | None = None  # a run with another owner than the record's begins a new record
    # The event's position among its publisher's events of the job, from 1. A store recognises an
    # event that is published again by this number. 0: the event is never published again.
    number: int = 0
    # The number of the publisher's previous event of the job, or 0. Only transports that may
    # deliver an event without the one before it need this.
    previous: int = 0
    run: Run = UNKNOWN_RUN  # the run that publishes the event
    # Another publisher's event that has to be stored first, as a Predecessor's text, or "".
    after: str = ""
    # Store the event only while the job is in this state.
    requires: Required = ""
    # What the event adds to the description of the job, as the JSON of a JobInfo, or "". See
    # :attr:`completes_info`.
    info: str = ""

    @classmethod
    def of(
        cls,
        event: JobEvent,
        origin: Origin = NO_ORIGIN,
        number: int = 0,
        requires: Required = "",
        info: JobInfo = NO_INFO,
    ) -> Outgoing:
        """Encode an event, with the owner and the run of its origin.

        Args:
            event: the event.
            origin: the owner and the run that publish it.
            number: its position among its publisher's events of the job.
            requires: the state that the job has to be in.
            info: the description of the job, for an ending and for a retry.

        Raises:
            InvalidMessage: this version does not publish the event's status, level or reason.
        """
        return cls(
            job_id=event.job_id,
            kind=event.kind,
            # In JSON a line break is only white space, and some stores separate events by lines.
            head=packet_head(check_published(event)).replace("\n", " "),
            state=event.state,
            owner=origin.owner,
            number=number,
            run=origin.run,
            after=origin.after if event.state == "started" else "",
            requires=requires,
            info=_described_by(event, info),
        )

    @property
    def begins(self) -> bool:
        """Return whether the event begins a new run."""
        return self.state in ("queued", "started") and not self.requires

    @property
    def completes_info(self) -> bool:
        """Return whether ``info`` only adds missing fields to the description, and replaces none.

        A record may begin with the ending of its job, or with a retry, which the main process of a
        worker publishes, or after the store has lost its data.
        """
        return _completes(self.kind, self.state)


class Message(Struct, frozen=True, gc=False):
    """An event from the store: a ready Socket.IO packet and its routing data."""

    epoch: str
    seq: int
    kind: Kind
    packet: str


class Snapshot(Struct, frozen=True, kw_only=True):
    """The stored state and events of a job at one moment."""

    epoch: str = NO_RECORD
    seq: int = 0
    state: str = "pending"
    info: JobInfo = NO_INFO
    events: tuple[Message, ...] = ()  # ordered by seq
    recovered: bool = False  # whether ``events`` has every event after the given cursor
    # The first seq of the complete history: events before it were trimmed. 1 if none was.
    complete_from: int = 1

    @property
    def owner(self) -> str | None:
        """The subject that owns the job; None without an owner or a record."""
        return self.info.owner


class TransportPublisher(Protocol):
    """The worker side. One thread at a time calls it; it may block, for a bounded time."""

    @property
    def publisher_id(self) -> str:
        """Return the unique id of this publisher, without white space."""

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Store the events in order and send them to the followers of their jobs.

        Numbered events of a job arrive in the order of their ``number``. A transport does not store
        an event twice for one publisher; it has to remember the numbers of a job's 32 latest
        publishers. An event with ``after``, and all later events of the same job, wait until the
        named event is stored. If the job has no record, they wait only for a predecessor of the
        last hour, because the store cannot know whether it once had an older one.

        A run with another owner than the record's begins a new record. Other events with another
        owner are dropped. Of a past run, and after the end of a job, only log lines are stored.
        At most ``Retention.size`` log lines are stored after the end.

        The ``info`` of each stored event is merged into the description of the job, as
        :meth:`JobInfo.updated <jobcast.events.JobInfo.updated>` does. The ``info`` of an ending and
        of a retry only adds missing fields, as :meth:`JobInfo.completed
        <jobcast.events.JobInfo.completed>` does, and so does that of an outdated event of the same
        sending, which is not stored; the epoch then changes. A new record, and a run that begins
        after the end, start with the ``info`` of their first event. An event of the kind
        ``INFO`` is sent with the title and the tags of the merged description, as
        :func:`~jobcast.events.packet_tail` puts them at its end, and is no part of the history.

        The history of a job has its latest ``Retention.size`` log lines or somewhat more, its
        latest ``Retention.statuses`` statuses and terminal events, and its latest progress. A run
        that begins after the end removes the events before it. ``Snapshot.complete_from`` tells
        exactly where events are missing.

        Raises:
            PublishFailed: the events in ``unsent`` may not have been stored; publish them again
                before newer events of the same jobs. If ``held`` is true, they wait for other
                publishers, and all other events are stored.
        """

    def emit(self, event: str, data: Any, *, room: str | None = None) -> None:
        """Emit like python-socketio; an event to a job's room becomes an event of the job."""

    def close(self) -> None:
        """Close all connections."""


@runtime_checkable
class SupportsAdvice(Protocol):
    """A publisher that can check its server's configuration. Optional."""

    def advice(self) -> list[str]:
        """Return warnings about configuration or state that weakens the delivery guarantees.

        Raises:
            TransportUnavailable: the server cannot be reached.
        """


class Source(Protocol):
    """The server side: the events of subscribed jobs, and their history."""

    @property
    def ready(self) -> bool:
        """Return whether the source receives events."""

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],
    ) -> None:
        """Begin to receive in the running loop.

        ``start`` may be called again after :meth:`aclose`, or in another loop without it. In the
        latter case the source abandons what belonged to the former loop, and awaits none of it.

        Args:
            on_message: called with the job id and each message, in the store's order.
            on_resumed: called after an interruption, when every subscription is restored. The
                events of the interruption have to be read from the history.
        """

    async def aclose(self) -> None:
        """Stop receiving and close all connections."""

    async def subscribe(self, job_id: str) -> None:
        """Receive a job's events. No event that is published after the return is missed.

        Raises:
            TransportUnavailable: the subscription could not be confirmed.
        """

    async def unsubscribe(self, job_id: str) -> None:
        """Stop receiving a job's events."""

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        """Return the stored events of a job: those after the cursor if none is missing, else all.

        Raises:
            TransportUnavailable: the store cannot be read.
        """

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        """Return the latest position of each job, in order; ``NO_RECORD`` and 0 without a record.

        Raises:
            TransportUnavailable: the store cannot be read.
        """

    async def info(self, job_id: str) -> JobInfo:
        """Return the description of the job, with its owner; ``NO_INFO`` without a record.

        Raises:
            TransportUnavailable: the store cannot be read.
        """


class FeedRemoval(Struct, frozen=True, gc=False):
    """A job is no longer part of a feed, as of a position of its record."""

    job_id: str
    epoch: str
    seq: int


FeedChange = JobSummary | FeedRemoval


@runtime_checkable
class SupportsFeeds(Protocol):
    """A source that knows the feeds of all jobs. Feeds have no name ``mine`` here. Optional.

    A feed has the latest jobs that belong to it, up to ``Retention.feed_size`` (ten times as many
    in ``all``); a job that has ended stays for ``Retention.summary_ttl``.
    """

    def watch_feeds(self, on_change: Callable[[str, FeedChange], None]) -> None:
        """Set the function that is called with the feed's name and each change of it.

        A change may be older than one before it: the higher epoch and seq of a job count. After an
        interruption, ``on_resumed`` of :meth:`Source.start` is called: feeds have to be read again.
        """

    async def subscribe_feed(self, feed: str) -> None:
        """Receive the changes of a feed. No change after the return is missed.

        Raises:
            TransportUnavailable: the subscription could not be confirmed.
        """

    async def unsubscribe_feed(self, feed: str) -> None:
        """Stop receiving the changes of a feed."""

    async def read_feed(self, feed: str) -> list[JobSummary]:
        """Return the jobs of a feed, the newest first, and repair what differs from their records.

        Raises:
            TransportUnavailable: the store cannot be read.
        """


class ClientManager(Protocol):
    """A client manager for ``socketio.AsyncServer`` with a :class:`Source`."""

    source: Source

    async def aclose(self) -> None:
        """Stop listening and close all connections."""


def _completes(kind: Kind, state: str | None) -> bool:
    return kind == TERMINAL or state == "retrying"


def _described_by(event: JobEvent, known: JobInfo) -> str:
    """Return what an event adds to the description of its job, as JSON.

    Args:
        event: the event, which may contain a description.
        known: the description of the job.
    """
    if _completes(event.kind, event.state):
        return encode_info(known)
    return encode_info(info_of(event)) if event.kind in (STATUS, INFO) else ""


def can_resume(after: Cursor | None, *, epoch: str, seq: int, complete_from: int) -> bool:
    """Return whether the history still has every event after a client's cursor.

    Args:
        after: the client's cursor; None for a client that has no events.
        epoch: the record's epoch.
        seq: the record's latest seq.
        complete_from: the first seq of the complete history, as in :class:`Snapshot`.
    """
    return after is not None and after.epoch == epoch and complete_from - 1 <= after.seq <= seq
