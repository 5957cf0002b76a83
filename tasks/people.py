"""An import of people from a CSV file into SQLite."""

import csv
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

from celery import shared_task

from jobcast import ProgressTask

COLUMNS = ["name", "email", "born"]
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


@shared_task(base=ProgressTask, bind=True)
def import_csv(self: ProgressTask, csv_path: str, database_path: str) -> dict[str, int]:
    """Replace the table ``people`` with the content of the file, in one transaction."""
    source = Path(csv_path)
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {csv_path}")
    Path(database_path).parent.mkdir(parents=True, exist_ok=True)

    with self.stage("count", weight=1, of=10):
        total = sum(1 for _ in self.track(read(source), message="counting rows"))

    imported = 0
    # Without an isolation level, BEGIN starts the transaction, and `with database` ends it.
    with closing(sqlite3.connect(database_path, isolation_level=None)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("DROP TABLE IF EXISTS people")
        database.execute("CREATE TABLE people (email TEXT PRIMARY KEY, name TEXT, born TEXT)")
        with self.stage("import", weight=8):
            for line, row in self.track(read(source), total, "importing people"):
                problem = problem_of(row) or insert(database, *row)
                if problem:
                    self.log(f"line {line}: {problem}", "warning")
                else:
                    imported += 1
        with self.stage("index", weight=1):
            self.progress(0, "indexing")
            database.execute("CREATE INDEX people_born ON people (born)")
    return {"imported": imported, "rejected": total - imported}


def read(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of the file, each with the number of its last line."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            if next(rows, None) != COLUMNS:
                raise ValueError(f"line 1 should be the header {','.join(COLUMNS)}")
            yield from ((rows.line_num, row) for row in rows if row)
        except csv.Error as exc:
            raise ValueError(f"line {rows.line_num}: {exc}") from exc


def problem_of(row: list[str]) -> str | None:
    """Return why the row cannot be imported; None if it can.

    The text contains no values of the row: followers of the job may not see personal data.
    """
    if len(row) != len(COLUMNS):
        return f"fields: {len(row)} instead of {len(COLUMNS)}"
    if "\ufffd" in "".join(row):
        return "not UTF-8"
    name, email, born = row
    if not name.strip():
        return "no name"
    if not EMAIL.fullmatch(email):
        return "email is not an address"
    try:
        date.fromisoformat(born)
    except ValueError:
        return "born is not a date"
    return None


def insert(database: sqlite3.Connection, name: str, email: str, born: str) -> str | None:
    try:
        database.execute("INSERT INTO people VALUES (?, ?, ?)", (email, name.strip(), born))
    except sqlite3.IntegrityError:
        return "email is that of an earlier line"
    return None
