"""The contract in Python: every event and request of protocol version 1.

``protocol/PROTOCOL.md`` is the contract in words and ``protocol/events.schema.json`` in JSON
Schema; the tests hold the three together with the files in ``protocol/examples/``.

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

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field, structs

from jobcast.errors import InvalidJobId, InvalidMessage

PROTOCOL_VERSION: Final = 1

T = TypeVar("T", bound=Struct)

JOB_ID_MAX_LENGTH: Final = 128  # characters
JOB_ID_PATTERN: Final = r"^[A-Za-z0-9_.:@=+/~-]{1,128}\Z"
TOKEN_MAX_LENGTH: Final = 8192  # characters

Level = Literal["debug", "info", "warning", "error", "critical"]
Reason = Literal["failure", "revoked", "time_limit", "worker_lost", "expired", "rejected"]
RunStatus = Literal["queued", "started", "retrying", "stalled"]
State = Literal["pending", "queued", "started", "retrying", "stalled", "complete", "error"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
TERMINAL_STATES: Final = frozenset({"complete", "error"})

# How an event may be treated on its way: a progress is a value that a newer one replaces,
# a log may be dropped when a buffer overflows, a status and a terminal event are always kept.
Kind = Literal["s", "p", "l", "t"]
STATUS: Final = "s"
PROGRESS: Final = "p"
LOG: Final = "l"
TERMINAL: Final = "t"

JobId = Annotated[str, Meta(max_length=JOB_ID_MAX_LENGTH, pattern=JOB_ID_PATTERN)]
Token = Annotated[str, Meta(min_length=1, max_length=TOKEN_MAX_LENGTH)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
SEQ_MAX: Final = 2**53 - 1  # what every JSON parser, and a Lua script, reads as a whole number
Seq = Annotated[int, Meta(ge=0, le=SEQ_MAX)]
# Bounds, because JSON has no infinity.
Finite = Annotated[float, Meta(ge=-1e308, le=1e308)]
NonNegative = Annotated[float, Meta(ge=0, le=1e308)]
Epoch = Annotated[str, Meta(max_length=64)]
Time = Annotated[datetime, Meta(tz=True)]
Percentage = Annotated[float, Meta(ge=0, le=100)]

_JOB_ID = re.compile(JOB_ID_PATTERN)
_ROOM_PREFIX = "job_"


def check_job_id(job_id: object) -> str:
    """Return ``job_id`` if it may become a room and a key.

    Raises:
        InvalidJobId: it is no string, is empty, is longer than 128 characters, or has a character
            other than ASCII letters, digits and ``_ . : @ = + / ~ -``.
    """
    if not isinstance(job_id, str):
        raise InvalidJobId(f"a job id is a string, not {type(job_id).__name__}")
    if not _JOB_ID.match(job_id):
        raise InvalidJobId(
            f"a job id has 1 to {JOB_ID_MAX_LENGTH} characters out of A-Z a-z 0-9 _ . : @ = + / ~ -"
        )
    return job_id


def is_job_id(job_id: str) -> bool:
    """Whether ``job_id`` may become a room and a key."""
    return _JOB_ID.match(job_id) is not None


def room_of(job_id: str) -> str:
    """The Socket.IO room of a job. No other function spells it."""
    return _ROOM_PREFIX + check_job_id(job_id)


def job_of(room: object) -> str | None:
    """The job that a room belongs to; None if it is not a job's room."""
    if isinstance(room, str) and room.startswith(_ROOM_PREFIX):
        job_id = room[len(_ROOM_PREFIX) :]
        return job_id if is_job_id(job_id) else None
    return None


def now() -> datetime:
    return datetime.now(UTC)


# --- server to client ---------------------------------------------------------------------------


class JobEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every event of a job carries.

    ``seq`` is given by the store, so it is 0 on an event that has not been published yet.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]

    job_id: JobId
    timestamp: Time = field(default_factory=now)
    seq: NonNegativeInt = 0

    @property
    def state(self) -> State | None:
        """The state that the job is in after this event; None where it changes nothing."""
        return None


class JobStatus(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """The job was queued, started, will be tried again, or is not heard of any more."""

    name: ClassVar[str] = "job_status"
    kind: ClassVar[Kind] = "s"

    status: RunStatus
    task: str | UnsetType = UNSET  # the Celery task's name
    attempt: Annotated[int, Meta(ge=1)] | UnsetType = UNSET  # 1 for the first try
    # Of what has started under this id, from 1: given by the store, like ``seq``.
    run: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    eta: Time | UnsetType = UNSET  # when a retry is due
    error: str | UnsetType = UNSET  # the class name of the exception behind a retry
    message: str | UnsetType = UNSET

    @property
    def state(self) -> State:
        """The status."""
        return self.status


class JobProgress(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """How far the job has come: a value, so that a newer one replaces an older one."""

    name: ClassVar[str] = "job_progress"
    kind: ClassVar[Kind] = "p"

    percentage: Percentage | None  # None where the total is unknown
    message: str | None
    current: Finite | UnsetType = UNSET
    total: Finite | UnsetType = UNSET
    stage: str | UnsetType = UNSET
    rate: NonNegative | UnsetType = UNSET  # items a second
    eta: NonNegative | UnsetType = UNSET  # seconds left


class JobLog(JobEvent, frozen=True, kw_only=True, omit_defaults=True):
    """A line that the job logged."""

    name: ClassVar[str] = "job_log"
    kind: ClassVar[Kind] = "l"

    level: Level
    message: str
    # The attempt that logged the line. The store sets it on a line that arrives after its run.
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
    """The job failed or was ended. Terminal. ``error`` is the exception's class name."""

    name: ClassVar[str] = "job_error"
    kind: ClassVar[Kind] = "t"

    error: str
    message: str
    reason: Reason

    @property
    def state(self) -> State:
        """Always ``error``."""
        return "error"


JOB_EVENTS: Final[Mapping[str, type[JobEvent]]] = {
    cls.name: cls for cls in (JobStatus, JobProgress, JobLog, JobComplete, JobError)
}


class Cursor(Struct, frozen=True, kw_only=True):
    """A place in a job's events: everything up to ``seq`` of the record ``epoch`` was seen."""

    epoch: Epoch
    seq: Seq


class Joined(Struct, frozen=True, kw_only=True):
    """A join took effect, or the record that a joined job is kept in was begun anew."""

    name: ClassVar[str] = "joined"

    job_id: JobId
    epoch: Epoch
    seq: Seq
    status: State


class Left(Struct, frozen=True, kw_only=True):
    """The right to follow a joined job has ended; no event of the job follows."""

    name: ClassVar[str] = "left"

    job_id: JobId
    code: str
    message: str


class TokenExpiring(Struct, frozen=True, kw_only=True):
    """The connection's token runs out soon: renew it with ``refresh_token``."""

    name: ClassVar[str] = "token_expiring"

    expires_at: Time


class Closing(Struct, frozen=True, kw_only=True):
    """The server is about to close the connection, for good."""

    name: ClassVar[str] = "closing"

    code: str
    message: str


class Draining(Struct, frozen=True, kw_only=True):
    """The process is about to end: the connection is closed soon, and another one is to be made."""

    name: ClassVar[str] = "draining"

    closes_in: NonNegative  # seconds


# --- client to server, and the acknowledgements -------------------------------------------------


class Auth(Struct, frozen=True, kw_only=True):
    """What a client sends to connect."""

    token: Token


class JoinJob(Struct, frozen=True, kw_only=True):
    """Follow a job; with ``after``, only what came later than that."""

    job_id: JobId
    after: Cursor | None = None


class LeaveJob(Struct, frozen=True, kw_only=True):
    job_id: JobId


class RefreshToken(Struct, frozen=True, kw_only=True):
    token: Token


REQUESTS: Final[Mapping[str, type[Struct]]] = {
    "connect": Auth,
    "join_job": JoinJob,
    "leave_job": LeaveJob,
    "refresh_token": RefreshToken,
}


class JoinAccepted(Struct, frozen=True, kw_only=True):
    job_id: JobId
    status: State
    epoch: Epoch
    seq: Seq
    recovered: bool  # the client's ``after`` was found: nothing is missing, nothing comes twice
    ok: Literal[True] = True


class LeaveAccepted(Struct, frozen=True, kw_only=True):
    job_id: JobId
    ok: Literal[True] = True


class TokenAccepted(Struct, frozen=True, kw_only=True):
    expires_at: Time
    ok: Literal[True] = True


class Refusal(Struct, frozen=True, kw_only=True):
    code: str
    message: str
    retry_after: NonNegative | UnsetType = UNSET  # seconds until the request may be repeated
    ok: Literal[False] = False


ACKNOWLEDGEMENTS: Final[Mapping[str, type[Struct]]] = {
    "join_job": JoinAccepted,
    "leave_job": LeaveAccepted,
    "refresh_token": TokenAccepted,
}


# --- to and from the wire -----------------------------------------------------------------------

_encoder = msgspec.json.Encoder()


def parse_event(name: str, payload: object) -> JobEvent:
    """The event that a payload from the wire stands for.

    Raises:
        InvalidMessage: the name is no event's, or the payload breaks the contract.
    """
    cls = JOB_EVENTS.get(name)
    if cls is None:
        raise InvalidMessage(name, f"is no event of a job; those are {', '.join(JOB_EVENTS)}")
    return _convert(name, payload, cls)


def parse_request(name: str, payload: object, cls: type[T]) -> T:
    """The request that a payload from a client stands for.

    Raises:
        InvalidMessage: the payload breaks the contract; its text may be shown to the client.
    """
    return _convert(name, payload, cls)


def parse_acknowledgement(name: str, payload: object) -> Struct:
    """What a server answered to the request ``name``: an acceptance or a :class:`Refusal`.

    Raises:
        InvalidMessage: the answer breaks the contract.
    """
    if not isinstance(payload, Mapping) or "ok" not in payload:
        raise InvalidMessage(name, "the acknowledgement has no ok")
    accepted = ACKNOWLEDGEMENTS[name] if payload["ok"] else Refusal
    return _convert(name, payload, accepted)


def payload_of(message: Struct) -> dict[str, Any]:
    """The JSON object that stands for a message, as plain Python data."""
    payload: dict[str, Any] = msgspec.to_builtins(message)
    return payload


def packet_head(event: JobEvent) -> str:
    """The Socket.IO packet of an event up to its ``seq``, which the store gives.

    The store appends the number and :func:`packet_tail`'s end, so that nobody after it has to
    read or write JSON.
    """
    payload = _encoder.encode(event if not event.seq else structs.replace(event, seq=0)).decode()
    return f'42["{event.name}",{payload[:-1]},"seq":'


def packet_tail(seq: int, run: int | None = None, attempt: int | None = None) -> str:
    """The end of a packet.

    Args:
        run: the number that a ``started`` has.
        attempt: the attempt that logged a line which arrives after its run.
    """
    if run is not None:
        return f'{seq},"run":{run}}}]'
    return f"{seq}}}]" if attempt is None else f'{seq},"attempt":{attempt}}}]'


def packet_of(message: Joined | Left | TokenExpiring | Closing | Draining) -> str:
    """The Socket.IO packet of a message that is no event of a job's history."""
    return f'42["{message.name}",{_encoder.encode(message).decode()}]'


def _convert(name: str, payload: object, cls: type[T]) -> T:
    try:
        return msgspec.convert(payload, cls)
    except msgspec.ValidationError as exc:
        raise InvalidMessage(name, str(exc)) from None
