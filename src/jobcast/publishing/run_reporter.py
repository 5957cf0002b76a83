"""The state of one run of a job, and the events that report it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from msgspec import UNSET, UnsetType, structs

from jobcast.events import (
    MAX_TAGS,
    NO_INFO,
    JobEvent,
    JobInfo,
    JobInfoUpdate,
    JobProgress,
    JobStatus,
    check_job_id,
    now,
)
from jobcast.publishing.labels import tags_of, title_of
from jobcast.publishing.progress import Number, Shown, Stage, number
from jobcast.publishing.sanitize import safe_text
from jobcast.transports import Origin
from jobcast.transports.base import Required

# A progress as the task reported it: timestamp, percentage, message, current, total, stage, and
# the start time of the tracked loop. A plain tuple, because most are replaced before they are read.
# The values have plain types, because they are read under the publisher's lock.
Slot = tuple[float, Any, str | None, Any, Any, Stage, float | None]


class Sent(Protocol):
    """An event that was submitted to the publisher."""

    @property
    def reference(self) -> str:
        """The reference for :attr:`Origin.after <jobcast.transports.Origin.after>`."""


class PublisherSource(Protocol):
    """An object with the publisher of the current process, which is another one after a fork."""

    @property
    def publisher(self) -> JobPublisher: ...


class JobPublisher(Protocol):
    def mark(self, job: RunReporter) -> None: ...
    def add(self, job: RunReporter, event: JobEvent, info: JobInfo = ...) -> Sent: ...
    def flush(self, timeout: float = ...) -> bool: ...
    def hurry(self) -> None: ...


class RunReporter:
    """Reports one run of a job to the publisher, and keeps the state of the run.

    The publisher reads the latest progress. The Celery adapter reports how the run begins, is
    retried and ends.

    Args:
        source: an object with the publisher of the process.
        job_id: the id of the job.
        origin: the owner of the job, and its run.
        waits: whether flushes wait; never in a worker's main process.
    """

    def __init__(
        self, source: PublisherSource, job_id: object, *, origin: Origin, waits: bool
    ) -> None:
        self.job_id = str.__str__(check_job_id(job_id))  # a subclass cannot be encoded
        self.origin = origin
        self.source = source
        self.ended = False
        self.retried = False
        self.replaced = False  # by another task with the same id
        self.last_status: Sent | None = None  # the event that the next run of the task must follow
        self.kept_headers: Mapping[str, Any] = {}  # headers of the message to copy to a retry
        self.retry_cause: tuple[BaseException | None, str] = None, ""
        self.requires: Required = ""  # the required state of the job for all further events
        self.dirty = False
        # Called with each published progress, in the publisher's thread and under its lock.
        self.on_progress: Callable[[JobProgress], None] | None = None
        self.flush_timeout: float | None = None  # seconds; None for the publisher's default
        self.slot: Slot | None = None  # the latest progress
        self._waits = waits
        self._info = NO_INFO  # without the title and the tags
        self._title: str | None = None
        self._tags: dict[str, None] = {}  # threads may add tags at the same time
        self._shown = Shown()
        self._taken: Slot | None = None

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.origin.run.attempt or 1

    @property
    def owner(self) -> str | None:
        """The subject whose token may follow the job."""
        return self.origin.owner

    @property
    def info(self) -> JobInfo:
        """The description of the job, as far as this process knows it; without the owner."""
        return structs.replace(self._info, title=self._title, tags=tuple(self._tags))

    @info.setter
    def info(self, info: JobInfo) -> None:
        self._info, self._title, self._tags = info, info.title, dict.fromkeys(info.tags)

    @property
    def last_event_ref(self) -> str:
        """The reference of the event that the next run must follow; empty if there is none."""
        return "" if self.last_status is None else self.last_status.reference

    def set_title(self, title: object) -> None:
        """Give the job another title.

        Args:
            title: the title of the job, for people: one line. A title of more than 256 characters
                is truncated. A blank one changes nothing.

        >>> job.set_title(f"Report for {customer.name}")
        """
        text = title_of(title)
        if text is not None and text != self._title:
            self._title = text
            self._add(JobInfoUpdate(job_id=self.job_id, **self._title_and_tags))

    def add_tags(self, *tags: str) -> None:
        """Add tags to the job.

        Args:
            tags: labels by which a job can be found, each with 1 to 128 characters and none of them
                a control character. A tag that the job has changes nothing.

        Raises:
            TypeError: a tag is no text.
            ValueError: a tag is invalid, or the job would have more than 10 tags.

        >>> job.add_tags(f"customer:{customer.id}", "urgent")
        """
        added = [tag for tag in tags_of(tags) if tag not in self._tags]
        if len(self._tags) + len(added) > MAX_TAGS:
            raise ValueError(
                f"a job has at most {MAX_TAGS} tags: job {self.job_id} has {len(self._tags)}, and"
                f" {len(added)} were to be added"
            )
        if added:
            self._tags.update(dict.fromkeys(added))
            self._add(JobInfoUpdate(job_id=self.job_id, **self._title_and_tags))

    @property
    def _title_and_tags(self) -> dict[str, Any]:
        return JobInfo(title=self._title, tags=tuple(self._tags)).fields

    def started(self) -> None:
        """Publish that a run begins, which resets the state of an earlier run."""
        self._add(
            JobStatus(
                job_id=self.job_id, status="started", attempt=self.attempt, **self._description
            )
        )

    def queued(self, *, cancellable: bool = True) -> Sent | None:
        """Publish that the task was sent.

        Args:
            cancellable: False if jobcast cannot stop the task; the description may say so, too.
        """
        self._info = structs.replace(self._info, worker=None)
        description = (
            self._description if cancellable else self._description | {"cancellable": False}
        )
        return self._add(JobStatus(job_id=self.job_id, status="queued", **description))

    @property
    def _description(self) -> dict[str, Any]:
        """The fields of a status that describe the job."""
        if self._info.created_at is None:
            self._info = structs.replace(self._info, created_at=now())
        return self.info.fields

    def retrying(self, *, retry_at: datetime, attempt: int | None = None) -> None:
        """Publish, once, that the job is retried because of ``retry_cause``.

        Args:
            retry_at: the time of the retry.
            attempt: the number of the attempt; by default the next one. A redelivery does not
                increase it.
        """
        if self.retried:
            return
        exc, message = self.retry_cause
        self.last_status = self._add(
            JobStatus(
                job_id=self.job_id,
                status="retrying",
                attempt=attempt or self.attempt + 1,
                retry_at=retry_at,
                error=UNSET if exc is None else type(exc).__name__,
                message=safe_text(message),
            ),
            self.info,
        )
        self.retried = True
        self.flush()

    def flush(self) -> bool:
        """Wait, within a bounded time, until all published events are stored.

        Returns:
            Whether they are. If not, they are sent later.
        """
        if not self._waits:
            return False
        publisher, timeout = self.source.publisher, self.flush_timeout
        return publisher.flush() if timeout is None else publisher.flush(timeout)

    def settle(self) -> bool:
        """Wait as :meth:`flush` does. In an event loop, send the events without waiting."""
        if _in_event_loop():
            self.source.publisher.hurry()
            return False
        return self.flush()

    def take_progress(self, slot: Slot | None) -> JobProgress | None:
        """Return the progress in ``slot``, or None if it is not newer than the last one taken."""
        # Once the latest progress is taken, a slot that another thread still holds is older.
        if slot is None or self._taken is slot or self._taken is self.slot:
            return None
        progress = self._progress_of(slot)
        if self.on_progress is not None:
            self.on_progress(progress)
        self._taken = slot  # last: a time limit may interrupt the task anywhere
        return progress

    def drop_progress(self, slot: Slot | None) -> None:
        """Skip a progress whose values cannot be read."""
        self._taken = slot

    def _progress_of(self, slot: Slot) -> JobProgress:
        reported_at, percentage, message, current, total, stage, began = slot
        done, of = number(current), number(total)
        rate, eta = _pace(done, of, UNSET if began is None else reported_at - began)
        return JobProgress(
            job_id=self.job_id,
            timestamp=datetime.fromtimestamp(reported_at, UTC),
            percentage=self._shown.percentage(number(percentage), done, of, stage),
            message=UNSET if message is None else safe_text(message),
            current=done,
            total=of,
            stage=_name(stage.name),
            rate=rate,
            eta=eta,
        )

    def _add(self, event: JobEvent, info: JobInfo = NO_INFO) -> Sent | None:
        return None if self.ended else self.source.publisher.add(self, event, info)

    def _end(self, event: Callable[[], JobEvent]) -> None:
        if not self.ended:
            self.source.publisher.add(self, event(), self.info)
            self.ended = True
            self.settle()


def _pace(done: Number, of: Number, seconds: Number) -> tuple[Number, Number]:
    """Return the rate in items per second and the remaining seconds of a tracked loop."""
    if done is UNSET or seconds is UNSET or done <= 0 or seconds <= 0:
        return UNSET, UNSET
    rate = done / seconds
    if rate <= 0:  # underflow
        return UNSET, UNSET
    left = UNSET if of is UNSET else number(round(max(0.0, (of - done) / rate), 3))
    return number(round(rate, 3)), left


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _name(name: str | None) -> str | UnsetType:
    return safe_text(name) if name else UNSET
