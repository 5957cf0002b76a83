"""The list of each user's jobs, in an SQLite file that all server processes share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LISTED = 200  # jobs listed for a user, the newest ones
PATIENCE = 5.0  # seconds to wait for another process's write lock


@dataclass(frozen=True, kw_only=True)
class StartedJob:
    job_id: str
    task: str
    title: str
    sent_at: str  # in UTC

    @property
    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class JobList:
    """The list of started jobs in a file. Its methods block on disk access."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._database() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS started (number INTEGER PRIMARY KEY, user TEXT,"
                " job_id TEXT UNIQUE, task TEXT, title TEXT, sent_at TEXT)"
            )
            database.execute("CREATE INDEX IF NOT EXISTS started_user ON started (user, number)")

    def add(self, user: str, job: StartedJob) -> None:
        with self._database() as database:
            database.execute(
                "INSERT INTO started (user, job_id, task, title, sent_at) VALUES (?, ?, ?, ?, ?)",
                (user, job.job_id, job.task, job.title, job.sent_at),
            )

    def of(self, user: str) -> list[StartedJob]:
        """Return the user's jobs, newest first."""
        with self._database() as database:
            rows = database.execute(
                "SELECT job_id, task, title, sent_at FROM started WHERE user = ?"
                " ORDER BY number DESC LIMIT ?",
                (user, LISTED),
            ).fetchall()
        names = ("job_id", "task", "title", "sent_at")
        return [StartedJob(**dict(zip(names, row, strict=True))) for row in rows]

    def remove(self, user: str, job_id: str) -> None:
        """Remove a job from the user's list, if it is there."""
        with self._database() as database:
            database.execute("DELETE FROM started WHERE user = ? AND job_id = ?", (user, job_id))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=PATIENCE)) as database, database:
            yield database
