"""The scripts of feeds: their calls, and what they return and publish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from jobcast.transports.redis.names import ALL_SHARDS, Names
from jobcast.transports.summaries import summarize, timestamp_of

# The shards of a feed differ in size, so each has room for this many standard deviations more than
# the mean. Otherwise a feed would lose jobs before it is full.
SHARD_DEVIATIONS: Final = 4
REFUSED: Final = -1  # the answer of feed.lua if the feed has a newer summary

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


class ScriptCall(NamedTuple):
    """A call of a script. All keys are in one slot."""

    script: Script
    keys: Sequence[str]
    argv: Sequence[str]


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

    @property
    def changes(self) -> Iterator[tuple[str, FeedChange]]:
        """The changes of all feeds of the job, now and before."""
        feeds = feeds_of(self.job.info)
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
        (epoch, seq, state, owner, info, began, former, progress), statuses = answer
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
        return cls(job, former or b"")


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
        argv = [*self._bounds(feed), change.job_id, change.epoch, str(change.seq), replaced]
        keys = self.names.feed_of(feed, change.job_id)
        return ScriptCall(FEED_SCRIPT, keys, [*argv, *_values(change)])

    def _bounds(self, feed: str) -> tuple[str, ...]:
        size = self.retention.feed_size
        if feed == ALL:
            size = shard_size(size)
        expiry = max(self.retention.summary_ttl, self.retention.active_ttl)
        publish = "SPUBLISH" if self.sharded else "PUBLISH"
        return publish, str(size), str(self.retention.summary_ttl), str(expiry)


def shard_size(feed_size: int) -> int:
    """Return how many jobs a shard of the feed of all jobs keeps at most.

    >>> shard_size(1000)
    725
    """
    mean = feed_size * ALL_FEED_FACTOR / ALL_SHARDS
    return ceil(mean + SHARD_DEVIATIONS * sqrt(mean))


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
