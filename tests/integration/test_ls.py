"""``jobcast ls`` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobcast.events import JobStatus
from tests.support import SECRET, TIMEOUT, Server, free_port, wait_for
from tests.support.owner import Owner
from tests.support.pty_process import PtyProcess

Token = Callable[..., str]
Listing = Callable[..., subprocess.CompletedProcess[bytes]]


def command(server: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "jobcast.cli", "ls", "--url", server, *arguments]


@pytest.fixture
def ls(server: Server, owner: Owner, token: Token) -> Listing:
    """Return a function that runs the command with the owner's token."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        variables = {**os.environ, "JOBCAST_TOKEN": token(owner.name), **env}
        if "COLUMNS" not in env:
            variables.pop("COLUMNS", None)
        return subprocess.run(
            command(server.url, *arguments), env=variables, capture_output=True, timeout=TIMEOUT,
            check=False,
        )  # fmt: skip

    return run


def lines(result: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().splitlines()


def objects(result: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(result)]


def wait_stored(ls: Listing, count: int) -> None:
    """Wait until the feed has so many jobs: a publisher writes feeds after the events."""
    wait_for(lambda: len(lines(ls("--json"))) == count, f"{count} jobs in the feed")


def test_table_has_a_row_for_each_job(ls: Listing, owner: Owner) -> None:
    first = owner.start(
        age=60, title="Export of the orders of March 2026, all of them", tags=("a",)
    )
    second = owner.start(task="shop.mail")
    wait_stored(ls, 2)
    header, *rows = lines(ls())
    assert header.split()[:4] == ["STATE", "JOB", "NAME", "DONE"]
    assert [row.split()[:3] for row in rows] == [
        ["▸", "started", second], ["▸", "started", first],
    ]  # fmt: skip
    assert "Export of the orders of March 2026, all of them" in rows[1]
    assert not any(row.endswith(" ") for row in (header, *rows))
    narrow = lines(ls(COLUMNS="60"))
    assert max(map(len, narrow)) <= 60


def test_json_output_has_one_summary_per_line(ls: Listing, owner: Owner) -> None:
    job_id = owner.start(title="Größe 日本 …", tags=("a", "b"))
    wait_stored(ls, 1)
    for encoding in ("utf-8", "ascii"):
        [job] = objects(ls("--json", PYTHONIOENCODING=encoding))
        assert (job["job_id"], job["status"], job["title"], job["tags"], job["owner"]) == (
            job_id, "started", "Größe 日本 …", ["a", "b"], owner.name,
        )  # fmt: skip


def test_options_filter_the_jobs(ls: Listing, owner: Owner) -> None:
    old = owner.start(age=7200, task="shop.export", tags=("a",))
    failed = owner.start(age=60, task="shop.export", tags=("a", "b"))
    running = owner.start(age=30, task="shop.mail")
    owner.fail(failed)
    wait_for(lambda: len(objects(ls("--json", "--status", "failed"))) == 1, "failed job")
    today = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    for arguments, expected in (
        ((), [running, failed, old]),
        (("--status", "running,failed"), [running, failed, old]),
        (("--status", "failed", "--status", "complete"), [failed]),
        (("--tag", "b"), [failed]),
        (("--task", "shop.mail"), [running]),
        (("--since", "1h"), [running, failed]),
        (("--since", today), [running, failed]),
        (("--since", "2026-01-01", "--limit", "1"), [running]),
        (("--feed", f"owner:{owner.name}", "--owner", owner.name), [running, failed, old]),
    ):
        assert [job["job_id"] for job in objects(ls("--json", *arguments))] == expected


def test_rest_of_a_list_is_reported_on_stderr(ls: Listing, owner: Owner) -> None:
    result = ls()
    assert (lines(result), result.stderr) == ([], b"no jobs\n")
    for _ in range(2):
        owner.start()
    wait_stored(ls, 2)
    assert ls().stderr == b""
    assert ls("--limit", "1").stderr == b"1 of 2 jobs; --limit shows more\n"


def test_command_signs_a_token_for_all_jobs(server: Server, owner: Owner) -> None:
    job_id = owner.start()
    env = {**os.environ, "JOBCAST_JWT_SECRET": SECRET}
    env.pop("JOBCAST_TOKEN", None)

    def found(*arguments: str) -> bool:
        result = subprocess.run(
            command(server.url, "--json", *arguments), env=env, capture_output=True,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
        return any(job["job_id"] == job_id for job in objects(result))

    wait_for(lambda: found("--owner", owner.name), "job in the feed of all jobs")
    assert found("--feed", f"owner:{owner.name}")


@pytest.mark.parametrize("width", [62, 110])
def test_table_fits_the_terminal(
    server: Server, owner: Owner, token: Token, ls: Listing, width: int
) -> None:
    job_id = owner.start(title="Export of the orders of March 2026 for the tax office " * 3)
    wait_stored(ls, 1)
    env = {"JOBCAST_TOKEN": token(owner.name)}
    with PtyProcess(command(server.url), env, width=width) as terminal:
        assert terminal.wait() == 0
        terminal.expect(lambda: job_id in terminal.text, "row of the job")
        assert all(len(line) <= width for line in terminal.text.splitlines())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_table_is_written_in_every_encoding(ls: Listing, owner: Owner, encoding: str) -> None:
    owner.start(title="größe 日本")
    wait_stored(ls, 1)
    result = ls(PYTHONIOENCODING=encoding)
    assert (result.returncode, result.stderr) == (0, b"")
    shown = result.stdout.decode(encoding)
    assert ("größe" in shown) == (encoding != "ascii")
    assert ("日本" if encoding == "utf-8" else "\\u65e5\\u672c") in shown
    assert shown.splitlines()[1].startswith("▸" if encoding == "utf-8" else ">")


def test_text_of_a_job_cannot_control_the_terminal(ls: Listing, owner: Owner) -> None:
    hostile = "\x1b]0;owned\x07\x9b2J\u202e\r\nforged"
    owner.publish(
        JobStatus(job_id="x", status="started", task=hostile, title=hostile, worker=hostile)
    )
    wait_stored(ls, 1)
    [_, row] = lines(ls())
    assert row.isprintable()
    assert "owned" not in row
    [line] = lines(ls("--json"))
    assert line.isprintable()


def test_refusal_is_reported_in_one_line(server: Server, ls: Listing) -> None:
    unreachable = f"http://127.0.0.1:{free_port()}"
    for arguments, code in (
        (("--feed", "all"), "feed_not_allowed"),
        (("--token", "garbage"), "token_invalid"),
        (("--url", unreachable), "unreachable"),
    ):
        result = ls(*arguments)
        assert (result.returncode, result.stdout) == (2, b"")
        [line] = result.stderr.decode().splitlines()
        assert line.startswith("Error: ")
        assert line.endswith(f"({code})")


def test_closed_output_pipe_ends_the_command_without_a_traceback(
    server: Server, owner: Owner, token: Token, ls: Listing
) -> None:
    # The output exceeds a pipe's buffer.
    for _ in range(3):
        owner.start(title="x" * 256, tags=tuple(f"{number}" * 100 for number in range(10)))
    wait_stored(ls, 3)
    listing = " ".join(command(server.url, "--json"))
    script = f"{listing} | head -c 1 | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "JOBCAST_TOKEN": token(owner.name)},
        capture_output=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert result.stderr == b""
    assert result.returncode in (0, 141)
