"""The jobs of a run."""

from __future__ import annotations

from collections.abc import Iterable


class Sent:
    """Which jobs run now, and of which nothing complete can be expected."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._all: set[str] = set()
        self.excused: set[str] = set()

    @property
    def all(self) -> set[str]:
        return set(self._all)  # faults look at it in threads, while jobs are sent

    @property
    def running(self) -> set[str]:
        return set(self._running)

    def begin(self, job_id: str) -> None:
        self._running.add(job_id)
        self._all.add(job_id)

    def end(self, job_id: str) -> None:
        self._running.discard(job_id)

    def excuse(self, job_ids: Iterable[str]) -> None:
        """The store has lost events of these jobs that it had confirmed."""
        self.excused.update(job_ids)
