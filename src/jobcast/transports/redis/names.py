"""The names of keys and channels in Redis and Valkey."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

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


class Names(Struct, frozen=True):
    """The names of keys and channels in the deployment with this prefix."""

    prefix: str = DEFAULT_PREFIX

    def of(self, job_id: str) -> Keys:
        """Return the keys and the channel of a job."""
        return Keys.of(job_id, self.prefix)

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

    # All leases are in one slot of a cluster.

    @property
    def running(self) -> str:
        return f"{self.prefix}:{{leases}}:running"

    @property
    def stalled(self) -> str:
        return f"{self.prefix}:{{leases}}:stalled"

    @property
    def watch(self) -> str:
        """The key of the server process that monitors leases."""
        return f"{self.prefix}:{{leases}}:watch"
