"""What a transport is: the nouns, and the decisions that are the same for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, Self, runtime_checkable

from msgspec import Struct

from jobcast.events import Cursor, JobEvent, Kind, State, packet_head
from jobcast.transports.runs import NOBODY, Run

DEFAULT_HISTORY_TTL: Final = 3600  # seconds after the last event of a job that has ended
DEFAULT_HISTORY_SIZE: Final = 1000  # events a job
ACTIVE_TTL: Final = 24 * 3600  # seconds; a job that has not ended may be silent for long
NO_RECORD: Final = ""  # the epoch of a job that nothing was published of
UNDER_WAY: Final = 3600  # seconds that an event may take to get to the store, as after an outage

Required = Literal["", "pending", "started", "stalled"]


class Retention(Struct, frozen=True, kw_only=True):
    """How much of a job is kept, and how long."""

    ttl: int = DEFAULT_HISTORY_TTL
    size: int = DEFAULT_HISTORY_SIZE

    @property
    def active_ttl(self) -> int:
        """Seconds that the record of a job which has not ended outlives its last event."""
        return max(self.ttl, ACTIVE_TTL)


class Origin(Struct, frozen=True):
    """Where what is said of a job comes from; it goes with all of it."""

    owner: str | None = None  # the subject whose token may follow it
    run: Run = NOBODY
    # The last event of the run before, as a Predecessor's text or "": the worker that tries a task
    # again is another one, and may reach the transport before the former does.
    after: str = ""


NO_ORIGIN: Final = Origin()


class Predecessor(NamedTuple):
    """An event of another publisher that has to be stored first.

    >>> Predecessor.parse("3f9a0c21d4e8 17 1767225600")
    Predecessor(publisher='3f9a0c21d4e8', number=17, published_at=1767225600)
    """

    publisher: str = ""
    number: int = 0  # 0: there is no such event
    published_at: int = 0  # seconds since 1970, by its publisher's clock; 0 if that is unknown

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the event that a text names; an empty text names none.

        Raises:
            ValueError: the text is not ``<publisher> <number> [<published at>]``.
        """
        publisher, _, numbers = text.partition(" ")
        number, _, published_at = numbers.partition(" ")
        return cls(publisher, int(number or 0), int(published_at or 0))

    def __str__(self) -> str:
        return f"{self.publisher} {self.number} {self.published_at}"

    def may_be_under_way(self, now: float) -> bool:
        """Whether the event can still come where there is no record that tells."""
        return now - self.published_at < UNDER_WAY


class Outgoing(Struct, frozen=True, kw_only=True):
    """An event on its way to the store, encoded but for its ``seq``."""

    job_id: str
    kind: Kind
    head: str
    state: State | None = None  # the job's state from here on, if the event changes it
    owner: str | None = None  # a run with another owner than the record's begins a new record
    # Its place among what its publisher says of the job, from 1: what is sent again, because the
    # answer was lost, is recognised by it. 0 for what is never sent again.
    number: int = 0
    # The number of the event that its publisher published of the job before this one; 0 for none.
    # Only transports that may deliver the later of two events without the earlier one need it.
    previous: int = 0
    run: Run = NOBODY  # which says it
    # What another publisher publishes of the job before this, as a Predecessor's text, or "".
    after: str = ""
    # It is of no interest unless the job is in this state: others may know better by now.
    requires: Required = ""

    @classmethod
    def of(
        cls, event: JobEvent, origin: Origin = NO_ORIGIN, number: int = 0, requires: Required = ""
    ) -> Outgoing:
        """Encode an event, with the owner and the run of its origin."""
        return cls(
            job_id=event.job_id,
            kind=event.kind,
            # In JSON a line break is never more than white space, and stores may go by lines.
            head=packet_head(event).replace("\n", " "),
            state=event.state,
            owner=origin.owner,
            number=number,
            run=origin.run,
            after=origin.after if event.state == "started" else "",
            requires=requires,
        )

    @property
    def begins(self) -> bool:
        """Whether a new run begins with the event."""
        return self.state in ("queued", "started") and not self.requires


class Message(Struct, frozen=True, gc=False):
    """An event as it comes from the store: a ready Socket.IO packet, and what routes it."""

    epoch: str
    seq: int
    kind: Kind
    packet: str


class Snapshot(Struct, frozen=True, kw_only=True):
    """What the store has of a job at one moment."""

    epoch: str = NO_RECORD
    seq: int = 0
    state: State = "pending"
    owner: str | None = None
    events: tuple[Message, ...] = ()  # in order
    recovered: bool = False  # nothing that came after the given cursor is missing in events


class TransportPublisher(Protocol):
    """The worker's side. Called by one thread at a time; it may block, and never for ever."""

    @property
    def publisher_id(self) -> str:
        """Tells publishers apart. It has no white space."""

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Store the events in order and send them to whoever follows their jobs.

        Events of a job that have a ``number`` come in its order. Those that were stored before, by
        this publisher, are not stored again; it is enough to know that of the latest 32 publishers
        of a job. One with ``after`` is not stored before what it names, nor is what follows it of
        the same job. If there is no record of the job, it waits only for what was published in the
        last hour: for anything older the store cannot know whether it was there.

        A run with another owner than the record's begins a new record; other events with another
        owner are dropped. Of a past run, and after the end, only log lines are stored. They do not
        push the end out of the history: it keeps ``Retention.size`` lines after it, and no more.

        Raises:
            PublishFailed: what it calls ``unsent`` was not stored, or may not have been; try again
                later, before anything newer of the same jobs. If it is ``held``, all of that waits
                for other publishers, and the rest is stored.
        """

    def emit(self, event: str, data: Any, *, room: str | None = None) -> None:
        """python-socketio's ``emit``; what goes to a job's room becomes an event of the job."""

    def close(self) -> None:
        """Let go of connections."""


@runtime_checkable
class SupportsAdvice(Protocol):
    """A publisher that can judge its server's configuration. Optional."""

    def advice(self) -> list[str]:
        """Return warnings about configuration or state that weakens the delivery guarantees.

        Raises:
            TransportUnavailable: the server cannot be asked.
        """


class Source(Protocol):
    """The realtime side: the events of the jobs that were subscribed to, and their history."""

    @property
    def ready(self) -> bool:
        """Whether events are being received."""

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],
    ) -> None:
        """Begin to receive, in the running loop.

        It may be called again after :meth:`aclose`, and in another loop without that: what belonged
        to the former loop is given up, and nothing of it is awaited.

        Args:
            on_message: called with the job's id and each message, in the store's order.
            on_resumed: called after an interruption, when every subscription is in force again:
                what was published in between has to be read from the history.
        """

    async def aclose(self) -> None:
        """Stop receiving and let go of connections."""

    async def subscribe(self, job_id: str) -> None:
        """Receive a job's events. What is published after the return is not missed.

        Raises:
            TransportUnavailable: the subscription could not be confirmed.
        """

    async def unsubscribe(self, job_id: str) -> None:
        """Receive the job's events no more."""

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        """What the store has of the job, or what came after a cursor if that can be told.

        Raises:
            TransportUnavailable: the store cannot be read.
        """

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        """Where the records of jobs are, in the same order; ``NO_RECORD`` and 0 where none is.

        Raises:
            TransportUnavailable: the store cannot be read.
        """

    async def owner(self, job_id: str) -> str | None:
        """The subject that the job belongs to; None if it has no owner or does not exist.

        Raises:
            TransportUnavailable: the store cannot be read.
        """


class ClientManager(Protocol):
    """A client manager of ``socketio.AsyncServer`` that brings a :class:`Source` along."""

    source: Source

    async def aclose(self) -> None:
        """Stop listening and let go of connections."""


def can_resume(after: Cursor | None, *, epoch: str, seq: int, first: int) -> bool:
    """Whether everything that came after a client's cursor is still there.

    Args:
        after: where the client is; None for one that has seen nothing.
        epoch: the record's.
        seq: the record's latest.
        first: the seq of the oldest status or log that is kept. What is older may have been
            trimmed, so that a cursor before it proves nothing.
    """
    return after is not None and after.epoch == epoch and first - 1 <= after.seq <= seq
