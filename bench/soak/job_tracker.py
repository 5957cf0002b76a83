"""Track the jobs of a run."""

from __future__ import annotations

from collections.abc import Iterable


class JobTracker:
    """The running jobs, and the jobs whose events the store has lost.

    Attributes:
        incomplete: jobs with lost events; a soak does not expect their transcripts to be complete.
    """

    def __init__(self) -> None:
        self._running: set[str] = set()
        self.incomplete: set[str] = set()

    @property
    def running(self) -> set[str]:
        return set(self._running)  # a copy: faults read it in threads while new jobs start

    def start(self, job_id: str) -> None:
        self._running.add(job_id)

    def end(self, job_id: str) -> None:
        self._running.discard(job_id)

    def mark_incomplete(self, job_ids: Iterable[str]) -> None:
        """Record that the store has lost confirmed events of these jobs."""
        self.incomplete.update(job_ids)
