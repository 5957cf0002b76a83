"""Feeds: lists of jobs that stay up to date, as Python types.

A feed is the list of the jobs of an owner (``owner:alice``, or ``mine`` for the client's own
subject), of the jobs with a tag (``tag:project:7``), or of all jobs (``all``).

>>> feeds_of(JobInfo(owner="alice", tags=("project:7",)))
('all', 'owner:alice', 'tag:project:7')
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from operator import attrgetter
from typing import Annotated, ClassVar, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from jobcast.events import (
    TERMINAL_STATES,
    Epoch,
    JobId,
    JobInfo,
    NonNegativeInt,
    OpenValue,
    Percentage,
    Seq,
    Tag,
    Tags,
    Time,
    Title,
    described,
)

MINE: Final = "mine"  # the feed of the client's own jobs
ALL: Final = "all"
OWNER_PREFIX: Final = "owner:"
TAG_PREFIX: Final = "tag:"
FEED_PATTERN: Final = r"^(?:mine|all|owner:[\s\S]{1,256}|tag:[^\x00-\x1f\x7f-\x9f]{1,128})\Z"
FEED_PAGE: Final = 100  # jobs per snapshot message at most
MAX_FEED_LIMIT: Final = 10_000  # jobs that a client may request at once
DEFAULT_FEED_LIMIT: Final = 100
MAX_HTTP_PAGE: Final = 1000  # jobs in an answer to ``GET /jobs``

# Names of several states, which a filter may use like a state.
RUNNING: Final = "running"  # every state of a job that has begun and has not ended
FAILED: Final = "failed"  # the state ``error``

Feed = Annotated[str, Meta(min_length=1, max_length=262, pattern=FEED_PATTERN)]
FeedLimit = Annotated[int, Meta(ge=1, le=MAX_FEED_LIMIT)]
FeedCursor = Annotated[str, Meta(min_length=1, max_length=256)]

_FEED = re.compile(FEED_PATTERN)


def is_feed(name: object) -> bool:
    """Return whether ``name`` is the name of a feed."""
    return isinstance(name, str) and _FEED.match(name) is not None


def check_feed(name: str) -> str:
    """Return ``name``, which should be the name of a feed.

    Raises:
        ValueError: ``name`` is not the name of a feed.
    """
    if not is_feed(name):
        raise ValueError(f"a feed is mine, all, owner:SUBJECT or tag:TAG, not {name!r}")
    return name


def feeds_of(info: JobInfo) -> tuple[str, ...]:
    """Return the names of the feeds that contain a job with this description."""
    owner = (OWNER_PREFIX + info.owner,) if info.owner else ()
    tags = (TAG_PREFIX + tag for tag in info.tags)
    return ALL, *(name for name in (*owner, *tags) if is_feed(name))


class JobSummary(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as feeds show it: no log lines and no result.

    Of two summaries of a job, the one with the newer record (``epoch``), and in the same record the
    one with the higher ``seq``, is the newer one.
    """

    job_id: JobId
    epoch: Epoch
    seq: Seq
    status: OpenValue
    created_at: Time  # without a ``queued`` event, the time of the job's first event
    task: str | UnsetType = UNSET
    title: Title | UnsetType = UNSET
    tags: Tags = ()
    owner: str | UnsetType = UNSET
    queue: str | UnsetType = UNSET
    worker: str | UnsetType = UNSET
    parent: JobId | UnsetType = UNSET
    cancellable: bool | UnsetType = UNSET
    terminates: bool | UnsetType = UNSET
    started_at: Time | UnsetType = UNSET  # of the latest attempt
    ended_at: Time | UnsetType = UNSET
    attempt: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    percentage: Percentage | UnsetType | None = UNSET  # None if the total is unknown
    message: str | UnsetType = UNSET  # of the latest progress, retry, cancellation or failure
    reason: OpenValue | UnsetType = UNSET  # why a job failed or was cancelled

    @property
    def has_ended(self) -> bool:
        """Whether the job has completed, failed or been cancelled."""
        return self.status in TERMINAL_STATES

    @property
    def info(self) -> JobInfo:
        """The description of the job."""
        return described(self)


def newest_first(jobs: Iterable[JobSummary]) -> list[JobSummary]:
    """Return the jobs in the order of feeds: the latest ``created_at`` first, then by id."""
    by_id = sorted(jobs, key=attrgetter("job_id"))
    return sorted(by_id, key=attrgetter("created_at"), reverse=True)


class FeedFilter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which jobs of a feed a client wants. A job has to match every field that is present."""

    status: Annotated[tuple[OpenValue, ...], Meta(min_length=1, max_length=16)] | UnsetType = UNSET
    tag: Tag | UnsetType = UNSET
    task: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    owner: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType = UNSET
    since: Time | UnsetType = UNSET  # jobs that were created then or later

    def matches(self, job: JobSummary) -> bool:
        """Return whether a client with this filter sees the job.

        >>> from datetime import UTC, datetime
        >>> created_at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> job = JobSummary(job_id="7", epoch="e", seq=1, status="retrying", created_at=created_at)
        >>> FeedFilter(status=("running",)).matches(job)
        True
        """
        return (
            (self.status is UNSET or _has_status(job, self.status))
            and (self.tag is UNSET or self.tag in job.tags)
            and self.task in (UNSET, job.task)
            and self.owner in (UNSET, job.owner)
            and (self.since is UNSET or job.created_at >= self.since)
        )


NO_FILTER: Final = FeedFilter()


def _has_status(job: JobSummary, names: Container[str]) -> bool:
    return (
        job.status in names
        or (job.status == "error" and FAILED in names)
        or (RUNNING in names and not job.has_ended and job.status not in ("pending", "queued"))
    )


# --- server to client ---------------------------------------------------------------------------


class FeedSnapshot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Jobs of a feed, the newest first. A long list has several messages."""

    name: ClassVar[str] = "feed_snapshot"

    feed: Feed
    jobs: tuple[JobSummary, ...]
    # Whether the client has to clear its list first: on the first message after a join, and when
    # the server reads the feed again.
    reset: bool = False
    last: bool = False  # whether this is the last message of the snapshot
    # On the last message, if there are older jobs: the ``after`` of the request for them.
    cursor: FeedCursor | UnsetType = UNSET


class FeedJob(JobSummary, frozen=True, kw_only=True, omit_defaults=True):
    """A job has changed, or is new in the feed."""

    name: ClassVar[str] = "feed_job"

    feed: Feed


class FeedGone(Struct, frozen=True, kw_only=True):
    """A job has left the feed, or no longer matches the client's filter."""

    name: ClassVar[str] = "feed_gone"

    feed: Feed
    job_id: JobId


class FeedLeft(Struct, frozen=True, kw_only=True):
    """The right to list a joined feed has ended; no message about the feed follows."""

    name: ClassVar[str] = "feed_left"

    feed: Feed
    code: str
    message: str


# --- client to server, and the acknowledgements -------------------------------------------------


class JoinFeed(Struct, frozen=True, kw_only=True):
    """A request to follow a feed.

    A request for a joined feed starts over with its own filter. With ``after``, the server keeps
    the filter of the join and sends older jobs only.
    """

    feed: Feed
    filter: FeedFilter | UnsetType = UNSET
    limit: FeedLimit = DEFAULT_FEED_LIMIT  # jobs in the snapshot
    after: FeedCursor | UnsetType = UNSET


class LeaveFeed(Struct, frozen=True, kw_only=True):
    feed: Feed


class JoinFeedAccepted(Struct, frozen=True, kw_only=True):
    feed: Feed
    total: NonNegativeInt  # jobs of the feed that match the filter
    ok: Literal[True] = True


class LeaveFeedAccepted(Struct, frozen=True, kw_only=True):
    feed: Feed
    ok: Literal[True] = True


FEED_EVENTS: Final[Mapping[str, type[FeedSnapshot | FeedJob | FeedGone | FeedLeft]]] = {
    cls.name: cls for cls in (FeedSnapshot, FeedJob, FeedGone, FeedLeft)
}
FEED_REQUESTS: Final[Mapping[str, type[Struct]]] = {
    "join_feed": JoinFeed,
    "leave_feed": LeaveFeed,
}
FEED_ACKNOWLEDGEMENTS: Final[Mapping[str, type[Struct]]] = {
    "join_feed": JoinFeedAccepted,
    "leave_feed": LeaveFeedAccepted,
}
