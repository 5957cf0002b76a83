"""The tasks that the console can start, with their arguments."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Input:
    """The paths of a job's input and output."""

    samples: Path
    workspace: Path  # the job's own directory
    upload: Path | None = None  # the user's file, which replaces the sample


@dataclass(frozen=True, kw_only=True)
class CatalogTask:
    """A task that the console offers."""

    task: str  # the name of the Celery task; the server does not import its code
    title: str
    description: str
    arguments: Callable[[Input], list[str]]
    columns: tuple[str, ...] = ()  # of the CSV file that it accepts; empty: it accepts no file

    @property
    def name(self) -> str:
        return self.task.rpartition(".")[2]

    @property
    def as_json(self) -> dict[str, Any]:
        accepts = {"extension": ".csv", "columns": list(self.columns)} if self.columns else None
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "accepts": accepts,
        }


def _hash_tree(given: Input) -> list[str]:
    return [str(given.samples / "tree")]


def _import_csv(given: Input) -> list[str]:
    source = given.upload or given.samples / "people.csv"
    return [str(source), str(given.workspace / "people.sqlite")]


def _make_thumbnails(given: Input) -> list[str]:
    return [str(given.samples / "images"), str(given.workspace / "thumbnails")]


def _fetch_feed(given: Input) -> list[str]:
    # A copy for each job, because a run deletes the marker file.
    feed = given.workspace / "feed.json"
    shutil.copyfile(given.samples / "feed.json", feed)
    Path(f"{feed}.busy").write_text("2")
    return [str(feed)]


def _audit_ledger(given: Input) -> list[str]:
    return [str(given.upload or given.samples / "ledger.csv")]


TASK_CATALOG = {
    task.name: task
    for task in (
        CatalogTask(
            task="tasks.checksums.hash_tree",
            title="Hash a folder",
            description="Reads every file below a folder and computes one digest of all.",
            arguments=_hash_tree,
        ),
        CatalogTask(
            task="tasks.people.import_csv",
            title="Import people",
            description="Imports a CSV file into a database. Invalid lines are skipped and logged.",
            arguments=_import_csv,
            columns=("name", "email", "born"),
        ),
        CatalogTask(
            task="tasks.thumbnails.make_thumbnails",
            title="Make thumbnails",
            description="Makes a thumbnail of each picture in a folder. One picture is broken.",
            arguments=_make_thumbnails,
        ),
        CatalogTask(
            task="tasks.flaky.fetch_feed",
            title="Fetch a feed",
            description="Reads a feed. It is not ready at first, so the job is retried twice.",
            arguments=_fetch_feed,
        ),
        CatalogTask(
            task="tasks.broken.audit_ledger",
            title="Audit a ledger",
            description="Checks the balances of a CSV file. The sample has an error, so it fails.",
            arguments=_audit_ledger,
            columns=("date", "text", "amount", "balance"),
        ),
    )
}
