"""The sample tasks, run on real files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from PIL import Image

from jobcast.publishing import runtime
from jobcast.transports.memory import MemoryBroker
from tasks import people
from tasks.broken import LedgerError, audit_ledger
from tasks.checksums import hash_tree
from tasks.flaky import FeedBusy, fetch_feed
from tasks.people import import_csv
from tasks.samples import Samples, main, make_samples, signatures
from tasks.thumbnails import make_thumbnails
from tests.support import new_id

URL = "memory://sample-tasks"

Ended = tuple[Any, list[dict[str, Any]]]
Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A function ``run(task, *args)`` that returns a task's result and its published events."""
    monkeypatch.setenv("JOBCAST_URL", URL)
    runtime.close()

    def run(task: Any, *args: object) -> Ended:
        job_id = new_id()
        ended = task.apply(args=[str(arg) for arg in args], task_id=job_id)
        messages = MemoryBroker.at(URL).snapshot(job_id, None).events
        events = [json.loads(message.packet.removeprefix("42")) for message in messages]
        return ended.result, [{"event": name, **data} for name, data in events]

    yield run
    runtime.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Shared samples, which no test modifies."""
    return make_samples(tmp_path_factory.mktemp("samples") / "made")


def log_lines(events: list[dict[str, Any]], level: str = "warning") -> list[str]:
    return [event["message"] for event in events if event.get("level") == level]


def write_people(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["name,email,born", *rows, ""]), encoding="utf-8")
    return path


def table(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT name, email, born FROM people ORDER BY name").fetchall()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Drop root's privileges in the block, because root can read every file."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can read, unlike pytest's ``tmp_path``."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


class TestHashTree:
    def test_samples_have_the_expected_result(self, run: Run, made: Samples) -> None:
        result, events = run(hash_tree, made.tree)
        paths = [path for path in made.tree.rglob("*") if path.is_file()]
        lines = sorted(
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}"
            f"  {path.relative_to(made.tree).as_posix()}\n".encode()
            for path in paths
        )
        assert result == {
            "files": len(paths),
            "bytes": sum(path.stat().st_size for path in paths),
            "unreadable": 1,
            "digest": hashlib.sha256(b"".join(lines)).hexdigest(),
        }
        assert log_lines(events) == ["cannot read gone.txt: No such file or directory"]
        last = [event for event in events if event["event"] == "job_progress"][-1]
        assert (last["percentage"], last["current"]) == (100, result["bytes"])
        assert events[-1]["result"] == result

    def test_digest_depends_only_on_names_and_contents(self, run: Run, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        (tree / "b").mkdir(parents=True)
        (tree / "a.txt").write_text("one")
        (tree / "b" / "c.txt").write_text("two")
        digest = run(hash_tree, tree)[0]["digest"]

        copy = shutil.copytree(tree, tmp_path / "copy")
        os.utime(copy / "a.txt", (0, 0))
        assert run(hash_tree, copy)[0]["digest"] == digest
        (copy / "a.txt").rename(copy / "z.txt")
        assert run(hash_tree, copy)[0]["digest"] != digest
        (tree / "a.txt").write_text("One")
        assert run(hash_tree, tree)[0]["digest"] != digest

    def test_unreadable_files_are_counted(self, run: Run, open_folder: Path) -> None:
        (open_folder / "file").write_text("secret")
        (open_folder / "file").chmod(0)
        (open_folder / "folder").mkdir(mode=0)
        with unprivileged():
            result, events = run(hash_tree, open_folder)
        assert (result["files"], result["unreadable"]) == (0, 2)
        assert sorted(log_lines(events)) == [
            "cannot read file: Permission denied",
            "cannot read folder: Permission denied",
        ]

    def test_pipes_are_skipped(self, run: Run, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert run(hash_tree, tmp_path)[0]["files"] == 0

    def test_empty_directory_has_a_digest(self, run: Run, tmp_path: Path) -> None:
        result, events = run(hash_tree, tmp_path)
        empty = hashlib.sha256().hexdigest()
        assert result == {"files": 0, "bytes": 0, "unreadable": 0, "digest": empty}
        assert events[-1]["event"] == "job_complete"

    def test_missing_directory_fails(self, run: Run, tmp_path: Path) -> None:
        result, events = run(hash_tree, tmp_path / "nowhere")
        assert isinstance(result, FileNotFoundError)
        assert events[-1]["event"] == "job_error"
        assert events[-1]["message"] == f"there is no directory {tmp_path / 'nowhere'}"


class TestImportCsv:
    def test_samples_have_the_expected_result(
        self, run: Run, made: Samples, tmp_path: Path
    ) -> None:
        database = tmp_path / "new" / "people.sqlite"
        result, events = run(import_csv, made.people_csv, database)
        assert result == {"imported": 20_000, "rejected": 6}
        assert len(table(database)) == 20_000

        lines = made.people_csv.read_bytes().splitlines()
        problems = dict(line.removeprefix("line ").split(": ", 1) for line in log_lines(events))
        assert {lines[int(number) - 1]: problem for number, problem in problems.items()} == {
            b"Ada Lovelace": "fields: 1 instead of 3",
            b",nobody@example.com,1990-01-01": "no name",
            b"Grace Hopper,grace at example.com,1906-12-09": "email is not an address",
            b"Alan Turing,alan@example.com,1912-06-31": "born is not a date",
            b"J\xfcrgen M\xfcller,juergen@example.com,1970-01-01": "not UTF-8",
            b"Again,person0@example.com,1970-01-01": "email is that of an earlier line",
        }
        last = [event for event in events if event["event"] == "job_progress"][-1]
        assert (last["stage"], last["percentage"]) == ("index", 100)
        assert events[-1]["result"] == result

    def test_second_run_replaces_the_table(self, run: Run, tmp_path: Path) -> None:
        database = tmp_path / "people.sqlite"
        source = write_people(
            tmp_path / "people.csv",
            "Ada,ada@example.com,1815-12-10",
            "Alan,alan@example.com,1912-06-23",
        )
        assert run(import_csv, source, database)[0] == {"imported": 2, "rejected": 0}
        first = table(database)
        assert run(import_csv, source, database)[0] == {"imported": 2, "rejected": 0}
        assert table(database) == first

        write_people(source, "Grace,grace@example.com,1906-12-09")
        assert run(import_csv, source, database)[0] == {"imported": 1, "rejected": 0}
        assert table(database) == [("Grace", "grace@example.com", "1906-12-09")]

    @pytest.mark.parametrize("earlier", [True, False], ids=["an earlier import", "no database"])
    def test_failed_import_keeps_the_previous_table(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
    ) -> None:
        database = tmp_path / "people.sqlite"
        source = write_people(tmp_path / "people.csv", "Ada,ada@example.com,1815-12-10")
        if earlier:
            run(import_csv, source, database)

        def interrupt(row: list[str]) -> None:
            if row[0] == "Alan":
                raise SoftTimeLimitExceeded

        monkeypatch.setattr(people, "problem_of", interrupt)
        write_people(
            source, "Grace,grace@example.com,1906-12-09", "Alan,alan@example.com,1912-06-23"
        )
        result, events = run(import_csv, source, database)
        assert isinstance(result, SoftTimeLimitExceeded)
        assert events[-1]["reason"] == "time_limit"
        if earlier:
            assert table(database) == [("Ada", "ada@example.com", "1815-12-10")]
        else:
            with pytest.raises(sqlite3.OperationalError, match="no such table"):
                table(database)

    def test_quotes_blank_lines_and_a_byte_order_mark_are_accepted(
        self, run: Run, tmp_path: Path
    ) -> None:
        source = tmp_path / "people.csv"
        text = (
            "name,email,born\r\n"
            '"Lovelace, Ada",ada@example.com,1815-12-10\r\n'
            "\r\n"
            '"Alan\nTuring",alan@example.com,1912-06-31\r\n'
        )
        source.write_bytes(text.encode("utf-8-sig"))
        result, events = run(import_csv, source, tmp_path / "people.sqlite")
        assert result == {"imported": 1, "rejected": 1}
        assert log_lines(events) == ["line 5: born is not a date"]

    def test_file_with_only_a_header_imports_nothing(self, run: Run, tmp_path: Path) -> None:
        source = write_people(tmp_path / "people.csv")
        database = tmp_path / "people.sqlite"
        assert run(import_csv, source, database)[0] == {"imported": 0, "rejected": 0}
        assert table(database) == []

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "line 1 should be the header name,email,born"),
            ("id,name\n1,Ada\n", "line 1 should be the header name,email,born"),
            ('name,email,born\n"Ada,ada@example.com,1815-12-10\n', "line 2: unexpected end of"),
        ],
        ids=["empty", "another header", "a quote that is not closed"],
    )
    def test_malformed_csv_fails(self, run: Run, tmp_path: Path, text: str, message: str) -> None:
        source = tmp_path / "people.csv"
        source.write_text(text)
        result, events = run(import_csv, source, tmp_path / "people.sqlite")
        assert isinstance(result, ValueError)
        assert events[-1]["message"].startswith(message)
        assert not (tmp_path / "people.sqlite").exists()

    def test_missing_file_fails(self, run: Run, tmp_path: Path) -> None:
        result, _ = run(import_csv, tmp_path / "people.csv", tmp_path / "people.sqlite")
        assert isinstance(result, FileNotFoundError)
        assert str(result) == f"there is no file {tmp_path / 'people.csv'}"


class TestMakeThumbnails:
    def test_samples_have_the_expected_result(
        self, run: Run, made: Samples, tmp_path: Path
    ) -> None:
        result, events = run(make_thumbnails, made.images, tmp_path / "new" / "thumbnails")
        assert result == {"thumbnails": 10, "unreadable": 1}
        assert log_lines(events) == ["cannot read broken.jpg: OSError"]
        pictures = {path.name for path in made.images.iterdir()} - {"broken.jpg"}
        thumbnails = list((tmp_path / "new" / "thumbnails").iterdir())
        assert {path.name for path in thumbnails} == {f"{name}.png" for name in pictures}
        for path in thumbnails:
            with Image.open(path) as thumbnail:
                assert (thumbnail.format, max(thumbnail.size)) == ("PNG", 128)

    def test_rotated_picture_is_turned_upright(self, run: Run, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.mkdir()
        orientation = Image.Exif()
        orientation[0x0112] = 6  # a quarter turn
        Image.new("RGB", (400, 200)).save(source / "one.jpg", exif=orientation)
        Image.new("RGBA", (20, 10), (0, 0, 0, 0)).save(source / "one.png")
        (source / "notes.txt").write_text("no picture")
        result = make_thumbnails.apply(args=[str(source), str(target)], kwargs={"size": 40}).result
        assert result == {"thumbnails": 2, "unreadable": 1}
        with Image.open(target / "one.jpg.png") as thumbnail:
            assert thumbnail.size == (20, 40)
        with Image.open(target / "one.png.png") as thumbnail:
            assert thumbnail.size == (20, 10)
            assert thumbnail.getpixel((0, 0)) == (0, 0, 0, 0)

    def test_empty_folder_has_no_thumbnails(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        result, events = run(make_thumbnails, tmp_path / "source", tmp_path / "target")
        assert result == {"thumbnails": 0, "unreadable": 0}
        assert events[-1]["event"] == "job_complete"
        assert list((tmp_path / "target").iterdir()) == []

    def test_missing_folder_fails(self, run: Run, tmp_path: Path) -> None:
        result, _ = run(make_thumbnails, tmp_path / "source", tmp_path / "target")
        assert isinstance(result, FileNotFoundError)
        assert not (tmp_path / "target").exists()

    def test_size_below_one_fails(self, run: Run, tmp_path: Path) -> None:
        ended = make_thumbnails.apply(args=[str(tmp_path), str(tmp_path / "target"), 0])
        assert isinstance(ended.result, ValueError)


class TestFetchFeed:
    @pytest.fixture
    def feed(self, made: Samples, tmp_path: Path) -> Path:
        for path in (made.feed, Path(f"{made.feed}.busy")):
            shutil.copy(path, tmp_path)
        return tmp_path / made.feed.name

    def test_third_attempt_succeeds(self, run: Run, feed: Path) -> None:
        _, events = run(fetch_feed, feed)
        statuses = [event for event in events if event["event"] == "job_status"]
        assert [(event["status"], event["attempt"]) for event in statuses] == [
            ("started", 1), ("retrying", 2), ("started", 2), ("retrying", 3), ("started", 3),
        ]  # fmt: skip
        assert [event["message"] for event in statuses if event["status"] == "retrying"] == [
            "the upstream is still writing: parts to come: 2",
            "the upstream is still writing: parts to come: 1",
        ]
        assert events[-1]["result"] == {"items": 500, "authors": 10, "attempts": 3}
        assert not Path(f"{feed}.busy").exists()

    def test_fetch_fails_after_the_last_retry(self, run: Run, feed: Path) -> None:
        Path(f"{feed}.busy").write_text("100")
        _, events = run(fetch_feed, feed)
        assert events[-1]["event"] == "job_error"
        assert events[-1]["error"] == FeedBusy.__name__
        assert sum(event.get("status") == "retrying" for event in events) == fetch_feed.max_retries

    def test_finished_feed_needs_one_attempt(self, run: Run, feed: Path) -> None:
        Path(f"{feed}.busy").unlink()
        assert run(fetch_feed, feed)[0]["attempts"] == 1

    def test_missing_feed_is_not_retried(self, run: Run, tmp_path: Path) -> None:
        result, events = run(fetch_feed, tmp_path / "feed.json")
        assert isinstance(result, FileNotFoundError)
        assert [event["event"] for event in events] == ["job_status", "job_error"]


class TestAuditLedger:
    def test_samples_have_the_expected_result(self, run: Run, made: Samples) -> None:
        result, events = run(audit_ledger, made.ledger)
        assert isinstance(result, LedgerError)
        assert (events[-1]["event"], events[-1]["error"]) == ("job_error", "LedgerError")
        assert events[-1]["message"] == str(result)

        rows = [line.split(",") for line in made.ledger.read_text().splitlines()[1:]]
        sums, balance = [], Decimal()
        for row in rows:
            balance += Decimal(row[2])
            sums.append(balance)
        wrong = next(i for i, row in enumerate(rows) if Decimal(row[3]) != sums[i])
        assert (
            str(result) == f"line {wrong + 2}: the balance is {sums[wrong]}, not {rows[wrong][3]}"
        )

        last = [event for event in events if event["event"] == "job_progress"][-1]
        assert (last["current"], last["total"]) == (wrong, len(rows))
        assert [line[:4] for line in log_lines(events, "info")] == [
            "2015", "2016", "2017", "2018", "2019",
        ]  # fmt: skip

    def test_balanced_ledger_succeeds(self, run: Run, tmp_path: Path) -> None:
        ledger = tmp_path / "ledger.csv"
        ledger.write_text(
            "date,text,amount,balance\n"
            "2024-12-31,sale,0.10,0.10\n"
            "2025-01-01,sale,0.20,0.30\n"
            "2025-01-02,rent,-1.00,-0.70\n"
        )
        result, events = run(audit_ledger, ledger)
        assert result == {"entries": 3, "balance": "-0.70"}
        assert log_lines(events, "info") == ["2024 adds up: it ends with 0.10"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "line 1 should be the header date,text,amount,balance"),
            ("a,b\n", "line 1 should be the header date,text,amount,balance"),
            ("date,text,amount,balance\n2025-01-01,sale,ten,10\n", "line 2: a number is missing"),
            ("date,text,amount,balance\n2025-01-01,sale,10\n", "line 2: a number is missing"),
        ],
        ids=["empty", "another header", "no number", "a short line"],
    )
    def test_file_that_is_not_a_ledger_fails(
        self, run: Run, tmp_path: Path, text: str, message: str
    ) -> None:
        ledger = tmp_path / "ledger.csv"
        ledger.write_text(text)
        result, _ = run(audit_ledger, ledger)
        assert isinstance(result, LedgerError)
        assert str(result) == message

    def test_missing_file_fails(self, run: Run, tmp_path: Path) -> None:
        result, _ = run(audit_ledger, tmp_path / "ledger.csv")
        assert isinstance(result, FileNotFoundError)


class TestSamples:
    def test_samples_are_reproducible(self, run: Run, made: Samples, tmp_path: Path) -> None:
        again = make_samples(tmp_path / "again")
        for ours, theirs in ((again.people_csv, made.people_csv), (again.ledger, made.ledger)):
            assert ours.read_bytes() == theirs.read_bytes()
        for ours, theirs in ((again.tree, made.tree), (again.images, made.images)):
            assert run(hash_tree, ours)[0] == run(hash_tree, theirs)[0]

    def test_larger_scale_makes_more_input(self, made: Samples, tmp_path: Path) -> None:
        large = make_samples(tmp_path / "large", scale=2)
        assert large.ledger.stat().st_size > 1.9 * made.ledger.stat().st_size
        assert len(list(large.images.iterdir())) == 21
        assert len(list(large.tree.rglob("*.img"))) == 2

    def test_signatures_cover_each_task(self, made: Samples) -> None:
        calls = signatures(made)
        assert {name: call.task for name, call in calls.items()} == {
            "hash_tree": "tasks.checksums.hash_tree",
            "import_csv": "tasks.people.import_csv",
            "make_thumbnails": "tasks.thumbnails.make_thumbnails",
            "fetch_feed": "tasks.flaky.fetch_feed",
            "audit_ledger": "tasks.broken.audit_ledger",
        }
        assert all(isinstance(arg, str) for call in calls.values() for arg in call.args)

    def test_command_writes_samples_and_prints_calls(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("sys.argv", ["samples", str(tmp_path / "made")])
        main()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 5
        assert f"tasks.checksums.hash_tree --args '[\"{tmp_path}/made/tree\"]'" in lines[0]

    def test_directory_that_is_not_empty_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").touch()
        with pytest.raises(FileExistsError):
            make_samples(tmp_path)

    def test_scale_below_one_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="1 or more"):
            make_samples(tmp_path, scale=0)
