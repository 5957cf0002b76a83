"""The scripts of feeds: their calls, and what they return and publish."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from hashlib import sha1
from math import ceil, sqrt
from typing import Any, Final, NamedTuple, Self

import msgspec
from msgspec import Struct

from jobcast.events import Cursor
from jobcast.feeds import ALL, JobSummary, feeds_of
from jobcast.transports.base import ALL_FEED_FACTOR, FeedChange, FeedRemoval, Retention
from jobcast.transports.redis.codec import parse_event, parse_info
from jobcast.transports.redis.lua import script
from jobcast.transports.redis.names import ALL_SHARDS, FeedKeys, Names
from jobcast.transports.summaries import summarize, timestamp_of

# The shards of a feed differ in size, so each has room for this many standard deviations more than
# the mean. Otherwise a feed would lose jobs before it is full.
SHARD_DEVIATIONS: Final = 4
REFUSED: Final = -1  # the answer of feed.lua if the feed has newer summaries of all jobs

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(JobSummary)
_feed_names = msgspec.json.Decoder(list[str])


class Script(NamedTuple):
    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Self:
        text = script(name)
        # Redis names scripts by this digest; it protects nothing.
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


SUMMARY_SCRIPT: Final = Script.load("summary")
FEED_SCRIPT: Final = Script.load("feed")
PROGRESS_SCRIPT: Final = Script.load("progress")

# The fields of a record that its summary depends on, in the order of summary.lua.
SUMMARY_FIELDS: Final = (
    "epoch", "seq", "state", "owner", "info", "began", "former", "progress", "statuses",
)  # fmt: skip
_WITH_PROGRESS: Final = (SUMMARY_FIELDS.index("seq"), SUMMARY_FIELDS.index("progress"))


class ScriptCall(NamedTuple):
    """A call of a script. All keys are in one slot."""

    script: Script
    keys: Sequence[str]
    argv: list[str]


class FeedWrite(NamedTuple):
    """A call that changes several jobs in a feed."""

    call: ScriptCall
    jobs: list[str]


class FeedEntry(NamedTuple):
    """An entry of a feed: the summary of a job, or None if the job was removed, and its text."""

    position: Cursor
    job: JobSummary | None

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse an entry: epoch, seq and summary, separated by spaces.

        Raises:
            ValueError: the entry has another format.
        """
        epoch, seq, summary = data.split(b" ", 2)
        position = Cursor(epoch=epoch.decode(), seq=int(seq))
        return cls(position, _decoder.decode(summary) if summary else None)


class RecordSummary(NamedTuple):
    """The summary of a record, and the feeds that the job has to leave."""

    job: JobSummary
    former: bytes  # the field of the record
    fields: Sequence[bytes | None]  # the SUMMARY_FIELDS
    statuses: Sequence[bytes]  # the events that summary.lua returns

    @property
    def feeds(self) -> tuple[str, ...]:
        """The feeds that the job belongs to."""
        return feeds_of(self.job.info)

    def after(self, fields: Sequence[bytes | None]) -> Self | None:
        """Return the summary at a later moment; None if more than the progress has changed.

        Args:
            fields: the ``SUMMARY_FIELDS`` of the record at that moment.

        Raises:
            ValueError: the record is invalid.
        """
        is_same = all(
            new == old or place in _WITH_PROGRESS
            for place, (new, old) in enumerate(zip(fields, self.fields, strict=True))
        )
        return self.parse(self.job.job_id, (fields, self.statuses)) if is_same else None

    @property
    def changes(self) -> Iterator[tuple[str, FeedChange]]:
        """The changes of all feeds of the job, now and before."""
        feeds = self.feeds
        for feed in feeds:
            yield feed, self.job
        for feed in _feed_names.decode(self.former) if self.former else ():
            if feed not in feeds:
                yield feed, FeedRemoval(self.job.job_id, self.job.epoch, self.job.seq)

    @classmethod
    def parse(cls, job_id: str, answer: Any) -> Self | None:
        """Parse the answer of ``summary.lua``; None without a record.

        Raises:
            ValueError: the record is invalid.
        """
        if answer is None:
            return None
        fields, statuses = answer
        epoch, seq, state, owner, info, began, former, progress, _ = fields
        position = Cursor(epoch=epoch.decode(), seq=int(seq))
        texts = [*statuses, *([] if progress is None else [progress])]
        messages = sorted(
            (parse_event(position.epoch, text) for text in texts if text),
            key=lambda message: message.seq,
        )
        packets = [message.packet for message in messages]
        # Records of earlier versions do not know when they began.
        start = began.decode() if began else timestamp_of(packets[0] if packets else "")
        described = parse_info(info, owner)
        job = summarize(job_id, position, state.decode(), described, start, packets)
        return cls(job, former or b"", fields, statuses)


class FeedCalls(Struct, frozen=True):
    """Composes the calls of the scripts.

    Args:
        names: the names of the keys.
        retention: the bounds of feeds.
        sharded: whether each channel belongs to one server of a cluster.
    """

    names: Names
    retention: Retention
    sharded: bool

    def summary(self, job_id: str, handled: bytes = b"") -> ScriptCall:
        """Return the call that reads a job's summary, and removes the feeds that it has left."""
        return ScriptCall(SUMMARY_SCRIPT, [self.names.of(job_id).state], [handled.decode()])

    def write(self, feed: str, change: FeedChange, expected: Cursor | None = None) -> ScriptCall:
        """Return the call that changes a feed.

        Args:
            feed: the name of the feed.
            change: the new summary, or the removal.
            expected: the position in the feed that the change replaces even if it is higher.
        """
        replaced = "" if expected is None else f"{expected.epoch} {expected.seq}"
        argv = [*self._bounds(feed), *_arguments(change, replaced)]
        return ScriptCall(FEED_SCRIPT, self.names.feed_of(feed, change.job_id), argv)

    def write_all(self, changes: Iterable[tuple[str, FeedChange]]) -> list[FeedWrite]:
        """Return the calls that change feeds, one for all changes of a feed or a shard of it.

        Args:
            changes: each with the name of its feed; a job has one change in a feed at most.
        """
        writes: dict[FeedKeys, FeedWrite] = {}
        for feed, change in changes:
            keys = self.names.feed_of(feed, change.job_id)
            if keys not in writes:
                call = ScriptCall(FEED_SCRIPT, keys, [*self._bounds(feed)])
                writes[keys] = FeedWrite(call, [])
            writes[keys].call.argv.extend(_arguments(change))
            writes[keys].jobs.append(change.job_id)
        return [*writes.values()]

    def publish_progress(
        self, records: Iterable[RecordSummary], followed: Container[str]
    ) -> list[FeedWrite]:
        """Return the calls that publish the progress of jobs to the feeds with these channels."""
        writes: dict[FeedKeys, FeedWrite] = {}
        for record in records:
            job = record.job
            arguments = [job.job_id, job.epoch, str(job.seq), _encoder.encode(job).decode()]
            for feed in record.feeds:
                keys = self.names.feed_of(feed, job.job_id)
                if keys.channel not in followed:
                    continue
                if keys not in writes:
                    used = [keys.jobs, keys.channel]
                    writes[keys] = FeedWrite(ScriptCall(PROGRESS_SCRIPT, used, [self._publish]), [])
                writes[keys].call.argv.extend(arguments)
                writes[keys].jobs.append(job.job_id)
        return [*writes.values()]

    @property
    def _publish(self) -> str:
        return "SPUBLISH" if self.sharded else "PUBLISH"

    def _bounds(self, feed: str) -> tuple[str, ...]:
        size = self.retention.feed_size
        if feed == ALL:
            size = shard_size(size)
        expiry = max(self.retention.summary_ttl, self.retention.active_ttl)
        return self._publish, str(size), str(self.retention.summary_ttl), str(expiry)


def shard_size(feed_size: int) -> int:
    """Return how many jobs a shard of the feed of all jobs keeps at most.

    >>> shard_size(1000)
    725
    """
    mean = feed_size * ALL_FEED_FACTOR / ALL_SHARDS
    return ceil(mean + SHARD_DEVIATIONS * sqrt(mean))


def _arguments(change: FeedChange, replaced: str = "") -> list[str]:
    """Return the arguments of feed.lua for a job."""
    return [change.job_id, change.epoch, str(change.seq), replaced, *_values(change)]


def _values(change: FeedChange) -> tuple[str, str, str]:
    if isinstance(change, FeedRemoval):
        return "", "", ""
    ended_at = change.ended_at or change.created_at
    return (
        f"{change.created_at.timestamp():.6f}",
        f"{ended_at.timestamp():.6f}" if change.has_ended else "",
        _encoder.encode(change).decode(),
    )


def parse_changes(data: bytes) -> list[FeedChange]:
    """Parse the message of a feed's channel: a line for each change.

    Raises:
        ValueError: the message has another format.
    """
    return [_parse_change(line) for line in data.split(b"\n")]


def _parse_change(line: bytes) -> FeedChange:
    kind, rest = line[:2], line[2:]
    if kind == b"+ ":
        return _decoder.decode(rest)
    if kind != b"- ":
        raise ValueError("a change begins with + or -")
    job_id, epoch, seq = rest.decode().split(" ")
    return FeedRemoval(job_id, epoch, int(seq))
