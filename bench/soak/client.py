"""The part that the clients of all interfaces share."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.soak.followed_job import FollowedJob, SentJob
from bench.soak.transcript import Event, Gap, Joined, event_of


class Client(ABC):
    """A client that reconnects as PROTOCOL.md describes.

    Args:
        name: the name in reports.
        token: the token of every connection.
        urls: the server processes, one of which each connection chooses.
        rng: the source of all choices.
        counts: the counts of the report.
        leave_probability: the probability with which the client stops at the end of a job, and
            does not wait for late lines.
    """

    def __init__(
        self, name: str, token: str, urls: Sequence[str], rng: random.Random, counts: Counter[str],
        *, leave_probability: float = 0.7,
    ) -> None:  # fmt: skip
        self.name = name
        self.followed: dict[str, FollowedJob] = {}
        self.last_received = 0.0
        self._token = token
        self._urls = urls
        self._rng = rng
        self._counts = counts
        self._leave_probability = leave_probability

    @abstractmethod
    async def run(self) -> None:
        """Connect, and reconnect until the task is cancelled."""

    @abstractmethod
    def _start(self, followed: FollowedJob) -> None:
        """Start to receive the events of a job."""

    @property
    def waiting(self) -> list[str]:
        """The jobs whose end has not arrived."""
        return [job_id for job_id, followed in self.followed.items() if not followed.ended]

    def follow(self, job: SentJob) -> None:
        followed = self.followed[job.job_id] = FollowedJob(job)
        self._start(followed)

    def forget(self, job_ids: Iterable[str]) -> None:
        """Stop waiting for these jobs."""
        for job_id in job_ids:
            if job_id in self.followed:
                self.followed[job_id].ended = True

    def _receive(self, name: str, data: Mapping[str, Any]) -> Event | None:
        """Record a message of a job. Return the event if the message is one."""
        followed = self.followed.get(data.get("job_id", ""))
        if followed is None:
            return None
        self.last_received = at = time.monotonic()
        event: Event | None = None
        if name == "joined":
            followed.handle_joined(Joined(data["epoch"], data["seq"], at=at))
        elif name == "job_gap":
            followed.handle_gap(Gap(data["after"], data["before"], at=at))
        elif (event := event_of(name, data, at)) is not None:
            followed.handle_event(event)
        return event

    def _leaves(self) -> bool:
        """Choose whether to leave a job that has ended."""
        return self._rng.random() < self._leave_probability
