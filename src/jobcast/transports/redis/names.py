"""The names of keys and channels in Redis and Valkey."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from jobcast.transports.prefix import DEFAULT_PREFIX


class Keys(NamedTuple):
    """Where a job lives. The braces put all of it into one cluster slot."""

    state: str
    events: str
    channel: str

    @classmethod
    def of(cls, job_id: str, prefix: str = DEFAULT_PREFIX) -> Keys:
        stem = f"{prefix}:{{{job_id}}}:"
        return cls(stem + "state", stem + "events", stem + "live")


class Names(Struct, frozen=True):
    """The names that the deployment with this prefix uses."""

    prefix: str = DEFAULT_PREFIX

    def of(self, job_id: str) -> Keys:
        """The keys and the channel of a job."""
        return Keys.of(job_id, self.prefix)

    @property
    def bus(self) -> str:
        """The channel of python-socketio's own traffic between processes."""
        return self.prefix

    @property
    def canary(self) -> str:
        """What the channels begin with on which server processes prove that they hear."""
        return f"{self.prefix}:canary"

    @property
    def revoked(self) -> str:
        """The key of the tokens that were revoked."""
        return f"{self.prefix}:{{revoked}}:tokens"

    @property
    def revocations(self) -> str:
        """The channel of tokens that are revoked."""
        return f"{self.prefix}:{{revoked}}:news"

    # One slot of a cluster has all leases.

    @property
    def running(self) -> str:
        return f"{self.prefix}:{{leases}}:running"

    @property
    def stalled(self) -> str:
        return f"{self.prefix}:{{leases}}:stalled"

    @property
    def watch(self) -> str:
        """Which server process looks after leases."""
        return f"{self.prefix}:{{leases}}:watch"
