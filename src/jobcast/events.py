"""The events and requests of protocol version 1, as Python types.

``protocol/PROTOCOL.md`` specifies the protocol and ``protocol/events.schema.json`` has its JSON
Schema. The tests check both, and the files in ``protocol/examples/``, against these types.

>>> event = JobLog(job_id="42", level="info", message="half-way")
>>> packet = packet_head(event) + packet_tail(7)
>>> packet[:16]
'42["job_log",{"j'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, get_args
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field, structs

from jobcast.errors import InvalidJobId, InvalidMessage

PROTOCOL_VERSION: Final = 1

T = TypeVar("T", bound=Struct)

JOB_ID_MAX_LENGTH: Final = 128  # characters
JOB_ID_PATTERN: Final = r"^[A-Za-z0-9_.:@=+/~-]{1,128}\Z"
TOKEN_MAX_LENGTH: Final = 8192  # characters

# The values that this version publishes. The lists are open: a newer version may publish others, so
# received values are of the type OpenValue.
Level = Literal["debug", "info", "warning", "error", "critical"]
Reason = Literal[
    "failure", "revoked", "time_limit", "worker_lost", "expired", "rejected", "cancelled"
]
RunStatus = Literal["queued", "started", "retrying", "stalled", "cancelling"]
State = Literal[
    "pending", "queued", "started", "retrying", "stalled", "cancelling",
    "complete", "error", "cancelled",
]  # fmt: skip
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
RUN_STATUSES: Final[tuple[RunStatus, ...]] = get_args(RunStatus)
STATES: Final[tuple[State, ...]] = get_args(State)
TERMINAL_STATES: Final = frozenset({"complete", "error", "cancelled"})
CANCELLED_REASONS: Final = frozenset({"cancelled", "revoked"})  # of jobs that end as ``cancelled``

# How buffers and stores may treat an event: a newer progress or info event replaces an older one, a
# log event may be dropped when a buffer overflows, status and terminal events are always kept.
Kind = Literal["s", "i", "p", "l", "t"]
STATUS: Final = "s"
INFO: Final = "i"
PROGRESS: Final = "p"
LOG: Final = "l"
TERMINAL: Final = "t"

JobId = Annotated[str, Meta(max_length=JOB_ID_MAX_LENGTH, pattern=JOB_ID_PATTERN)]
Token = Annotated[str, Meta(min_length=1, max_length=TOKEN_MAX_LENGTH)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
SEQ_MAX: Final = 2**53 - 1  # the largest integer that JSON parsers and Lua represent exactly
Seq = Annotated[int, Meta(ge=0, le=SEQ_MAX)]
TrimmedTo = Annotated[int, Meta(ge=2, le=SEQ_MAX)]  # a seq with trimmed events before it
# Bounded, because JSON cannot represent infinity.
Finite = Annotated[float, Meta(ge=-1e308, le=1e308)]
NonNegative = Annotated[float, Meta(ge=0, le=1e308)]
Epoch = Annotated[str, Meta(max_length=64)]
Time = Annotated[datetime, Meta(tz=True)]
Percentage = Annotated[float, Meta(ge=0, le=100)]
OPEN_VALUE_MAX_LENGTH: Final = 64  # characters
OpenValue = Annotated[str, Meta(min_length=1, max_length=OPEN_VALUE_MAX_LENGTH)]
# The states that no ``job_status`` leads to: a job without events has one, terminal events others.
OpenStatus = Annotated[OpenValue, Meta(pattern=r"^(?!(pending|complete|error|cancelled)\Z)")]

TITLE_MAX_LENGTH: Final = 256  # characters
Title = Annotated[str, Meta(min_length=1, max_length=TITLE_MAX_LENGTH)]
TAG_MAX_LENGTH: Final = 128  # characters
TAG_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]{1,128}\Z"  # no control characters
MAX_TAGS: Final = 10  # per job
Tag = Annotated[str, Meta(min_length=1, max_length=TAG_MAX_LENGTH, pattern=TAG_PATTERN)]
Tags = Annotated[tuple[Tag, ...], Meta(max_length=MAX_TAGS)]
CANCEL_MESSAGE_MAX_LENGTH: Final = 1000  # characters
CancelMessage = Annotated[str, Meta(max_length=CANCEL_MESSAGE_MAX_LENGTH)]
MAX_BODY_BYTES: Final = 16 * 1024  # of an HTTP request

_JOB_ID = re.compile(JOB_ID_PATTERN)
_ROOM_PREFIX = "job_"


def check_job_id(job_id: object) -> str:
    """Return ``job_id`` if it can name a room and a key.

    Raises:
        InvalidJobId: the id is not a string, is empty, is longer than 128 characters, or has a
            character other than ASCII letters, digits and ``_ . : @ = + / ~ -``.
    """
    if not isinstance(job_id, str):
        raise InvalidJobId(f"a job id is a string, not {type(job_id).__name__}")
    if not _JOB_ID.match(job_id):
        raise InvalidJobId(
            f"a job id has 1 to {JOB_ID_MAX_LENGTH} characters out of A-Z a-z 0-9 _ . : @ = + / ~ -"
        )
    return job_id


def is_job_id(job_id: str) -> bool:
    """Return whether ``job_id`` can name a room and a key."""
    return _JOB_ID.match(job_id) is not None


def room_of(job_id: str) -> str:
    """Return the Socket.IO room of a job."""
    return _ROOM_PREFIX + check_job_id(job_id)


def job_path(job_id: str) -> str:
    """Return the path of a job in the HTTP interface, below the server's URL."""
    return f"/jobs/{quote(job_id, safe='')}"


def job_of(room: object) -> str | None:
    """Return the id of the job that a room belongs to; None if it is not the room of a job."""
    if isinstance(room, str) and room.startswith(_ROOM_PREFIX):
        job_id = room[len(_ROOM_PREFIX) :]
        return job_id if is_job_id(job_id) else None
    return None


def now() -> datetime:
    return datetime.now(UTC)


class JobInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A description of a job, as far as it is known."""

    created_at: Time | None = None  # when the job was sent
    task: str | None = None  # the Celery task's name
    title: Title | None = None
    tags: Tags = ()
    queue: str | None = None
    worker: str | None = None  # the worker that runs the job
    parent: JobId | None = None  # the job that sent this one
    owner: str | None = None  # the subject that owns the job
    cancellable: bool = True  # whether a request can cancel the job
    # Whether the worker terminates a cancelled run that does not end. It depends on the pool.
    terminates: bool = False

    def updated(self, newer: JobInfo) -> JobInfo:
        """Return this description, updated by a newer one.

        Newer values replace older ones, except that the first ``created_at`` stays. Tags are added,
        up to the limit. ``terminates`` belongs to the worker, and changes with it.

        >>> JobInfo(title="a", tags=("x",)).updated(JobInfo(title="b", tags=("y", "x"))).tags
        ('x', 'y')
        """
        changes = newer.fields
        if self.created_at is not None:
            changes.pop("created_at", None)
        changes["tags"] = tuple(dict.fromkeys((*self.tags, *newer.tags)))[:MAX_TAGS]
        if newer.worker is not None:
            changes["terminates"] = newer.terminates
        return structs.replace(self, **changes)

    def completed(self, other: JobInfo) -> JobInfo:
        """Return this description, with missing fields taken from another one.

        >>> JobInfo(title="a").completed(JobInfo(title="b", tags=("x",))).fields
        {'title': 'a', 'tags': ('x',)}
        """
        return structs.replace(other, **self.fields)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that are known, with the names that they have in messages."""
        if self == NO_INFO:
            return {}
        values = structs.asdict(self).items()
        return {name: value for name, value in values if value != getattr(NO_INFO, name)}


NO_INFO: Final = JobInfo()

# --- server to client ---------------------------------------------------------------------------


class JobEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields that all events of a job have.

    The store assigns ``seq``. It is 0 on an event that has not been published.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]

    job_id: JobId
    timestamp: Time = field(default_factory=now)
    seq: NonNegativeInt = 0

    @property
    def state(self) -> str | None:
        """The state of the job after this event; None if the event does not change it."""
        return None


class JobStatus(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """The job was queued, has started, will be retried, has stalled, or is asked to stop."""

    name: ClassVar[str] = "job_status"
    kind: ClassVar[Kind] = "s"

    status: OpenStatus
    task: str | UnsetType = UNSET  # the Celery task's name
    attempt: Annotated[int, Meta(ge=1)] | UnsetType = UNSET  # 1 for the first attempt
    # The number of this run among all runs of the job id, from 1. The store assigns it.
    run: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    retry_at: Time | UnsetType = UNSET  # when a retry is due
    error: str | UnsetType = UNSET  # the class name of the exception that caused a retry
    message: str | UnsetType = UNSET
    by: str | UnsetType = UNSET  # on ``cancelling``: the subject who asked for it
    # The description of the job, on ``queued`` and ``started``: see JobInfo.
    title: Title | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    queue: str | UnsetType = UNSET
    worker: str | UnsetType = UNSET
    parent: JobId | UnsetType = UNSET
    created_at: Time | UnsetType = UNSET
    cancellable: bool | UnsetType = UNSET
    terminates: bool | UnsetType = UNSET

    @property
    def state(self) -> str:
        """The same as ``status``."""
        return self.status


class JobInfoUpdate(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """The running job has another title or further tags.

    The store merges the event into the record, and sends it with the title and all tags of the
    record. It is no part of the history.
    """

    name: ClassVar[str] = "job_info"
    kind: ClassVar[Kind] = "i"

    title: Title | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class JobProgress(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """The progress of the job. A newer event replaces an older one."""

    name: ClassVar[str] = "job_progress"
    kind: ClassVar[Kind] = "p"

    percentage: Percentage | None  # None if the total is unknown
    message: str | UnsetType = UNSET
    current: Finite | UnsetType = UNSET
    total: Finite | UnsetType = UNSET
    stage: str | UnsetType = UNSET
    rate: NonNegative | UnsetType = UNSET  # items a second
    eta: NonNegative | UnsetType = UNSET  # seconds left


class JobLog(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """A log line of the job."""

    name: ClassVar[str] = "job_log"
    kind: ClassVar[Kind] = "l"

    level: OpenValue
    message: str
    # The attempt that logged the line. The store sets it if the line arrives after its run's end.
    attempt: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


class JobComplete(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """The job succeeded. Terminal."""

    name: ClassVar[str] = "job_complete"
    kind: ClassVar[Kind] = "t"

    result: Any

    @property
    def state(self) -> State:
        """Always ``complete``."""
        return "complete"


class JobError(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """The job failed, was cancelled or was terminated. Terminal, whatever its ``reason`` is.

    ``error`` is the exception's class name.
    """

    name: ClassVar[str] = "job_error"
    kind: ClassVar[Kind] = "t"

    error: str
    message: str
    reason: OpenValue
    by: str | UnsetType = UNSET  # the subject who cancelled the job

    @property
    def state(self) -> State:
        """``cancelled`` if the job was cancelled or revoked, otherwise ``error``."""
        return "cancelled" if self.reason in CANCELLED_REASONS else "error"


JOB_EVENTS: Final[Mapping[str, type[JobEvent]]] = {
    cls.name: cls for cls in (JobStatus, JobInfoUpdate, JobProgress, JobLog, JobComplete, JobError)
}


# The field of each event that has a value of an open list, and the values that are published.
PUBLISHED: Final[Mapping[type[JobEvent], tuple[str, tuple[str, ...]]]] = {
    JobStatus: ("status", RUN_STATUSES),
    JobLog: ("level", LEVELS),
    JobError: ("reason", REASONS),
}


def check_published(event: JobEvent) -> JobEvent:
    """Return ``event`` if this version publishes its status, level or reason.

    Raises:
        InvalidMessage: the value is not in the list of this version.
    """
    name, values = PUBLISHED.get(type(event), ("job_id", ()))
    if values and (value := getattr(event, name)) not in values:
        raise InvalidMessage(
            event.name, f"{name} should be one of {', '.join(values)}, not {value!r}"
        )
    return event


class Cursor(Struct, frozen=True, kw_only=True):
    """A position in a job's events: the client has all up to ``seq`` of the record ``epoch``."""

    epoch: Epoch
    seq: Seq


class Hello(Struct, frozen=True, kw_only=True):
    """The first event of a connection: the server, and the requests that it answers."""

    name: ClassVar[str] = "hello"

    protocol: Annotated[int, Meta(ge=1)]
    server: str  # such as jobcast/1.0.0
    features: tuple[OpenValue, ...]


class Joined(Struct, frozen=True, kw_only=True):
    """A join took effect, or the store began a new record of a joined job."""

    name: ClassVar[str] = "joined"

    job_id: JobId
    epoch: Epoch
    seq: Seq
    status: OpenValue
    # The first seq from which the history is complete; missing if nothing was trimmed.
    complete_from: TrimmedTo | UnsetType = UNSET
    # The description of the job, up to ``seq``: see JobInfo.
    created_at: Time | UnsetType = UNSET
    task: str | UnsetType = UNSET
    title: Title | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    queue: str | UnsetType = UNSET
    worker: str | UnsetType = UNSET
    parent: JobId | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    cancellable: bool | UnsetType = UNSET
    terminates: bool | UnsetType = UNSET


class JobGap(Struct, frozen=True, kw_only=True):
    """History between two positions was trimmed: events with ``after < seq < before``.

    The server sends it in the order of seq, before the first event that follows the gap.
    """

    name: ClassVar[str] = "job_gap"

    job_id: JobId
    after: Seq
    before: TrimmedTo


class Left(Struct, frozen=True, kw_only=True):
    """The right to follow a joined job has ended; no event of the job follows."""

    name: ClassVar[str] = "left"

    job_id: JobId
    code: str
    message: str


class TokenExpiring(Struct, frozen=True, kw_only=True):
    """The connection's token expires soon. The client renews it with ``refresh_token``."""

    name: ClassVar[str] = "token_expiring"

    expires_at: Time


class Closing(Struct, frozen=True, kw_only=True):
    """The server closes the connection right after this event, for the reason ``code``."""

    name: ClassVar[str] = "closing"

    code: str
    message: str


class Draining(Struct, frozen=True, kw_only=True):
    """The server process is about to exit. The client reconnects to another process."""

    name: ClassVar[str] = "draining"

    closes_in: NonNegative  # seconds until the server closes the connection


# --- client to server, and the acknowledgements -------------------------------------------------


class Auth(Struct, frozen=True, kw_only=True):
    """The payload of a client's Socket.IO connect packet."""

    token: Token


class JoinJob(Struct, frozen=True, kw_only=True):
    """A request to follow a job. With ``after``, the server replays only later events."""

    job_id: JobId
    after: Cursor | UnsetType = UNSET

    @property
    def cursor(self) -> Cursor | None:
        """The client's position; None if it requests the whole record."""
        return None if self.after is UNSET else self.after


class LeaveJob(Struct, frozen=True, kw_only=True):
    job_id: JobId


class CancelJob(Struct, frozen=True, kw_only=True):
    """A request to cancel a job. ``message`` is a text for people, such as the reason."""

    job_id: JobId
    message: CancelMessage = ""


class RefreshToken(Struct, frozen=True, kw_only=True):
    token: Token


class JoinAccepted(Struct, frozen=True, kw_only=True):
    job_id: JobId
    status: OpenValue
    epoch: Epoch
    seq: Seq
    recovered: bool  # the server found the client's ``after``: no event is missing or repeated
    ok: Literal[True] = True


class LeaveAccepted(Struct, frozen=True, kw_only=True):
    job_id: JobId
    ok: Literal[True] = True


class CancelAccepted(Struct, frozen=True, kw_only=True):
    """The job is cancelled, or will be.

    ``outcome`` is ``cancelled`` (the job was not running, and has ended), ``requested`` (it is
    running, and is asked to stop) or ``already_ended``.
    """

    job_id: JobId
    outcome: OpenValue
    # With ``requested``: whether the worker terminates a run that does not end.
    terminates: bool | UnsetType = UNSET
    ok: Literal[True] = True


class TokenAccepted(Struct, frozen=True, kw_only=True):
    expires_at: Time
    ok: Literal[True] = True


class Refusal(Struct, frozen=True, kw_only=True):
    code: str
    message: str
    retry_after: NonNegative | UnsetType = UNSET  # seconds until the request may be repeated
    ok: Literal[False] = False


# --- to and from the wire -----------------------------------------------------------------------

_encoder = msgspec.json.Encoder()


def parse_event(name: str, payload: object) -> JobEvent:
    """Return the event that a name and a payload from the wire describe.

    Its status, level or reason may be one that this version does not know.

    Raises:
        InvalidMessage: no event has this name, or the payload violates the protocol.
    """
    cls = JOB_EVENTS.get(name)
    if cls is None:
        raise InvalidMessage(
            name, f"is not an event of a job; expected one of {', '.join(JOB_EVENTS)}"
        )
    return _convert(name, payload, cls)


def parse_request(name: str, payload: object, cls: type[T]) -> T:
    """Return the message of type ``cls`` that a payload describes.

    Raises:
        InvalidMessage: the payload violates the protocol. The exception's message may be sent to
            the client.
    """
    return _convert(name, payload, cls)


def info_of(message: JobEvent | Joined) -> JobInfo:
    """Return the description of the job that a message contains."""
    if not isinstance(message, JobStatus | JobInfoUpdate | Joined):
        return NO_INFO
    return NO_INFO.updated(described(message))


def described(message: Struct) -> JobInfo:
    """Return the fields of a description that a message has, as they are."""
    values = {name: getattr(message, name, UNSET) for name in JobInfo.__struct_fields__}
    return JobInfo(**{name: value for name, value in values.items() if value is not UNSET})


def encode_info(info: JobInfo) -> str:
    """Return a description as a JSON object; an empty text if nothing is known."""
    return "" if info == NO_INFO else _encoder.encode(info).decode()


def decode_info(text: str | bytes, owner: str | None = None) -> JobInfo:
    """Return the description that a JSON object contains, with an owner.

    Raises:
        ValueError: the text is no description.
    """
    info = msgspec.json.decode(text, type=JobInfo) if text else NO_INFO
    return info if owner is None else structs.replace(info, owner=owner)


def payload_of(message: Struct) -> dict[str, Any]:
    """Return a message as plain Python data, ready to be encoded as a JSON object."""
    payload: dict[str, Any] = msgspec.to_builtins(message)
    return payload


def packet_head(event: JobEvent) -> str:
    """Return the Socket.IO packet of an event up to its ``seq``, which the store assigns.

    The store appends :func:`packet_tail`. After that, no process has to parse or encode JSON.
    """
    if isinstance(event, JobInfoUpdate):
        event = structs.replace(event, title=UNSET, tags=UNSET)  # they are in the tail
    payload = _encoder.encode(event if not event.seq else structs.replace(event, seq=0)).decode()
    return f'42["{event.name}",{payload[:-1]},"seq":'


def packet_tail(
    seq: int, run: int | None = None, attempt: int | None = None, info: JobInfo = NO_INFO
) -> str:
    """Return the end of a packet.

    Args:
        seq: the event's number in the job's record.
        run: the number of the run; on ``started`` events.
        attempt: the attempt that logged the line; on lines that arrive after their run's end.
        info: the title and the tags of the record; on ``job_info`` events.
    """
    if info != NO_INFO:
        shown = _encoder.encode(JobInfo(title=info.title, tags=info.tags)).decode()
        return f"{seq},{shown[1:]}]" if len(shown) > len("{}") else f"{seq}}}]"
    if run is not None:
        return f'{seq},"run":{run}}}]'
    return f"{seq}}}]" if attempt is None else f'{seq},"attempt":{attempt}}}]'


def _convert(name: str, payload: object, cls: type[T]) -> T:
    try:
        return msgspec.convert(payload, cls)
    except msgspec.ValidationError as exc:
        raise InvalidMessage(name, str(exc)) from None
