"""The jobs that a client follows, and what each connection received of them."""

from __future__ import annotations

from dataclasses import dataclass

from bench.soak.jobs import Script
from bench.soak.transcript import Connection, Event, Gap, Joined, describe


@dataclass(frozen=True)
class SentJob:
    job_id: str
    script: Script


class FollowedJob:
    """A job that a client follows: the cursor, and the events of each connection."""

    def __init__(self, job: SentJob) -> None:
        self.job = job
        self.epoch = ""
        self.seq = 0
        self.ended = False
        self.connections: list[Connection] = []

    @property
    def after(self) -> tuple[str, int] | None:
        return (self.epoch, self.seq) if self.epoch else None

    def handle_joined(self, joined: Joined) -> None:
        self.connections[-1].append(joined)
        if joined.epoch != self.epoch:
            self.epoch, self.seq, self.ended = joined.epoch, 0, False

    def handle_gap(self, gap: Gap) -> None:
        self.connections[-1].append(gap)

    def handle_event(self, event: Event) -> None:
        self.connections[-1].append(event)
        self.seq = max(self.seq, event.seq)
        self.ended = self.ended or event.is_end

    def advance(self, epoch: str, seq: int) -> None:
        """Advance the cursor to the one of an answer, unless the cursor is newer."""
        if epoch == self.epoch:
            self.seq = max(self.seq, seq)


def format_transcript(followed: FollowedJob) -> str:
    """Return the transcript of a job as text."""
    lines = [f"expected: {', '.join(followed.job.script.transcript())}"]
    for number, connection in enumerate(followed.connections, 1):
        lines.append(f"connection {number}")
        for entry in connection:
            text = describe(entry) if isinstance(entry, Event) else repr(entry)
            lines.append(f"  {entry.at:.3f} {text}")
    return "\n".join([*lines, ""])
