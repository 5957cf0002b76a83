"""The tasks that the console can start, and what each is called with."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Input:
    """Where a job finds its input, and where it may write."""

    samples: Path
    workspace: Path  # the job's own
    upload: Path | None = None  # the user's file, instead of the sample


@dataclass(frozen=True, kw_only=True)
class Startable:
    task: str  # its name, which is all that is known of it here
    title: str
    description: str
    arguments: Callable[[Input], list[str]]
    columns: tuple[str, ...] = ()  # of the CSV file that it takes; without them it takes none

    @property
    def name(self) -> str:
        return self.task.rpartition(".")[2]

    @property
    def shown(self) -> dict[str, Any]:
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
    # A run takes away the marker that says how many parts are still to come: each has its own.
    feed = given.workspace / "feed.json"
    shutil.copyfile(given.samples / "feed.json", feed)
    Path(f"{feed}.busy").write_text("2")
    return [str(feed)]


def _audit_ledger(given: Input) -> list[str]:
    return [str(given.upload or given.samples / "ledger.csv")]


STARTABLE = {
    startable.name: startable
    for startable in (
        Startable(
            task="tasks.checksums.hash_tree",
            title="Hash a folder",
            description="Reads every file below a folder and gives one digest of it all.",
            arguments=_hash_tree,
        ),
        Startable(
            task="tasks.people.import_csv",
            title="Import people",
            description="Imports a CSV file into a database. Lines that will not do are logged.",
            arguments=_import_csv,
            columns=("name", "email", "born"),
        ),
        Startable(
            task="tasks.thumbnails.make_thumbnails",
            title="Make thumbnails",
            description="Makes a small picture of each picture in a folder. One of them is broken.",
            arguments=_make_thumbnails,
        ),
        Startable(
            task="tasks.flaky.fetch_feed",
            title="Fetch a feed",
            description="The feed is still being written at first, so it is tried again, twice.",
            arguments=_fetch_feed,
        ),
        Startable(
            task="tasks.broken.audit_ledger",
            title="Audit a ledger",
            description="Adds up the entries of a CSV file. The sample does not add up: it fails.",
            arguments=_audit_ledger,
            columns=("date", "text", "amount", "balance"),
        ),
    )
}
