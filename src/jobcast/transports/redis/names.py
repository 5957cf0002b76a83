"""The names of keys and channels in Redis and Valkey."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import quote
from zlib import crc32

from msgspec import Struct

from jobcast.feeds import ALL
from jobcast.transports.prefix import DEFAULT_PREFIX


class Keys(NamedTuple):
    """The keys and the channel of a job. The braces put them into one cluster slot."""

    state: str
    lines: str
    channel: str

    @classmethod
    def of(cls, job_id: str, prefix: str = DEFAULT_PREFIX) -> Keys:
        stem = f"{prefix}:{{{job_id}}}:"
        return cls(stem + "state", stem + "lines", stem + "live")


ALL_SHARDS: Final = 16  # of the feed ``all``, so that no cluster node has every job's changes


class FeedKeys(NamedTuple):
    """The keys and the channel of a feed, or of a shard of ``all``, in one cluster slot.

    The names of owners and tags are percent-encoded: they may have braces, spaces and line breaks.
    """

    order: str
    jobs: str
    ended: str
    channel: str

    @classmethod
    def of(cls, feed: str, prefix: str = DEFAULT_PREFIX) -> FeedKeys:
        stem = f"{prefix}:feed:{{{quote(feed, safe='')}}}:"
        return cls(stem + "index", stem + "jobs", stem + "ended", stem + "changes")


class Names(Struct, frozen=True):
    """The names of keys and channels in the deployment with this prefix."""

    prefix: str = DEFAULT_PREFIX

    def of(self, job_id: str) -> Keys:
        """Return the keys and the channel of a job."""
        return Keys.of(job_id, self.prefix)

    def feed_of(self, feed: str, job_id: str) -> FeedKeys:
        """Return the keys of the part of a feed that may have the job."""
        shard = f"{ALL}.{crc32(job_id.encode()) % ALL_SHARDS}"
        return FeedKeys.of(shard if feed == ALL else feed, self.prefix)

    def parts_of(self, feed: str) -> list[FeedKeys]:
        """Return the keys of all parts of a feed."""
        parts = [f"{ALL}.{shard}" for shard in range(ALL_SHARDS)] if feed == ALL else [feed]
        return [FeedKeys.of(part, self.prefix) for part in parts]

    @property
    def bus(self) -> str:
        """The channel of python-socketio's own traffic between processes."""
        return self.prefix

    @property
    def canary(self) -> str:
        """The prefix of the channels with which server processes verify that they receive."""
        return f"{self.prefix}:canary"

    @property
    def revoked(self) -> str:
        """The key of the revoked tokens."""
        return f"{self.prefix}:{{revoked}}:tokens"

    @property
    def revocations(self) -> str:
        """The channel for revocations of tokens."""
        return f"{self.prefix}:{{revoked}}:news"

    @property
    def cancellations(self) -> str:
        """The control channel: accepted requests to cancel jobs."""
        return f"{self.prefix}:{{cancel}}:news"

    # All leases are in one slot of a cluster.

    @property
    def running(self) -> str:
        return f"{self.prefix}:{{leases}}:running"

    @property
    def stalled(self) -> str:
        return f"{self.prefix}:{{leases}}:stalled"

    @property
    def cancelling(self) -> str:
        """The key of the requests to cancel running jobs."""
        return f"{self.prefix}:{{leases}}:cancelling"

    @property
    def cancelling_since(self) -> str:
        """The key of the times of these requests."""
        return f"{self.prefix}:{{leases}}:cancelling-since"

    @property
    def watch(self) -> str:
        """The key of the server process that monitors leases."""
        return f"{self.prefix}:{{leases}}:watch"
