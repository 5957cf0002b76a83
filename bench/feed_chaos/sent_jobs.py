"""The jobs that a run has sent, and the lists that follow from their records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import structs

from bench.feed_chaos.jobs import LATE_TAG, RENAMED
from jobcast.events import NO_INFO, Cursor
from jobcast.feeds import FeedFilter, JobSummary, feeds_of
from jobcast.transports.base import Snapshot
from jobcast.transports.summaries import summarize, timestamp_of

#: The states in which no run of a job is active.
REST: Final = ("complete", "error", "queued", "retrying", "pending")


class Description(NamedTuple):
    """What the sender says about a job."""

    owner: str
    title: str
    tags: frozenset[str]

    @classmethod
    def of(cls, job: JobSummary) -> Description:
        """Return the description without the changes that jobs make themselves."""
        title = "" if job.title is msgspec.UNSET else job.title.removesuffix(RENAMED)
        owner = "" if job.owner is msgspec.UNSET else job.owner
        return cls(owner, title, frozenset(job.tags) - {LATE_TAG})


class SentJobs:
    """The descriptions with which each job was sent."""

    def __init__(self) -> None:
        self._sent: defaultdict[str, list[Description]] = defaultdict(list)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sent)

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, job_id: str, description: Description) -> None:
        self._sent[job_id].append(description)

    def owners(self, job_id: str) -> set[str]:
        return {description.owner for description in self._sent[job_id]}

    @property
    def repeated(self) -> int:
        """The number of jobs that were sent under an id that another owner had used."""
        return sum(len(descriptions) - 1 for descriptions in self._sent.values())

    def problems_at_the_end(self, records: Iterable[JobSummary]) -> Iterator[str]:
        """Yield the records with another description than sent, and those of unended runs."""
        for record in records:
            if not self._was_sent(record):
                yield f"{record.job_id}: no job was sent with this owner, title and tags: {record}"
            if record.status not in REST:
                yield f"{record.job_id}: its run has no ending: {record}"

    def problem_of(self, job: JobSummary, feed: str) -> str | None:
        """Return why a follower of a feed should not have received a job; None if it may.

        A job whose run is stalled before its first event is stored has no description yet.
        """
        if feed not in feeds_of(job.info):
            return f"{job.job_id}: it is no job of {feed}: {job}"
        is_described = structs.replace(job.info, created_at=None) != NO_INFO
        if not (self._was_sent(job) or (job.job_id in self._sent and not is_described)):
            return f"{job.job_id}: no job was sent with this owner, title and tags: {job}"
        return None

    def _was_sent(self, job: JobSummary) -> bool:
        return Description.of(job) in self._sent.get(job.job_id, ())


def summary_of(job_id: str, record: Snapshot) -> JobSummary:
    """Return the summary of a record, from its history."""
    packets = [event.packet for event in record.events]
    began = timestamp_of(packets[0]) if packets else ""
    position = Cursor(epoch=record.epoch, seq=record.seq)
    return summarize(job_id, position, record.state, record.info, began, packets)


def expected_list(
    records: Iterable[JobSummary], feed: str, wanted: FeedFilter
) -> dict[str, JobSummary]:
    """Return the jobs that a follower of a feed has to show."""
    return {
        job.job_id: job for job in records if feed in feeds_of(job.info) and wanted.matches(job)
    }


def differences(
    shown: Mapping[str, JobSummary], expected: Mapping[str, JobSummary]
) -> Iterator[str]:
    """Yield what differs between two lists."""
    for job_id in sorted({*shown, *expected}):
        job, record = shown.get(job_id), expected.get(job_id)
        if job is None:
            yield f"{job_id} is missing: {record}"
        elif record is None:
            yield f"{job_id} should not be in the list: {job}"
        elif _shown_fields(job) != _shown_fields(record):
            yield f"{job_id} differs from its record:\n  shown  {job}\n  record {record}"
        elif job.seq > record.seq:
            yield f"{job_id} has seq {job.seq}, which is higher than {record.seq} of its record"


def _shown_fields(job: JobSummary) -> dict[str, Any]:
    """Return what a list shows of a job. Log lines change the seq only, and are not sent."""
    fields: dict[str, Any] = msgspec.to_builtins(job)
    return {name: value for name, value in fields.items() if name not in ("seq", "feed")}
