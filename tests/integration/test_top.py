"""``jobcast top`` in a pseudo-terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from jobcast.events import JobLog, JobProgress
from tests.conftest import Valkey
from tests.support import SECRET, TIMEOUT, Server, running
from tests.support.owner import Owner
from tests.support.pty_process import PtyProcess

Token = Callable[..., str]


@contextmanager
def top(
    server: Server, token: str, *arguments: str, width: int = 110, height: int = 24
) -> Iterator[PtyProcess]:
    argv = [sys.executable, "-m", "jobcast.cli", "top", "--url", server.url, *arguments]
    with PtyProcess(argv, {"JOBCAST_TOKEN": token}, width, height) as terminal:
        yield terminal


def shows(terminal: PtyProcess, *texts: str) -> None:
    """Wait until the list has all of the texts."""
    terminal.expect(lambda: all(text in terminal.frame for text in texts), f"list with {texts}")


def has_height(terminal: PtyProcess, height: int) -> bool:
    return len(terminal.frame.splitlines()) == height


def names(terminal: PtyProcess) -> list[str]:
    """Return the names of the listed jobs, which are one word each, from a wide terminal."""
    rows = [line.split() for line in terminal.frame.splitlines()[2:]]
    return [row[2] for row in rows if len(row) > 2 and row[0] in "▸✔✖·↻⏸"]


@pytest.mark.parametrize("width", [62, 110])
def test_list_is_live_and_fits_the_terminal(
    server: Server, owner: Owner, token: Token, width: int
) -> None:
    first = owner.start(title="Export of the orders of March 2026 for the tax office " * 2)
    with top(server, token(owner.name), width=width) as terminal:
        shows(terminal, "mine  1 job", "1 running", "▸", "Export", first)
        owner.publish(JobProgress(job_id=first, percentage=43.0, message="reading " * 40))
        shows(terminal, "43%", "reading")
        owner.start(task="shop.mail")
        shows(terminal, "2 running", "mail")
        owner.complete(first)
        shows(terminal, "1 running", "1 complete", "✔")
        lines = terminal.frame.splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) == 24
        terminal.send("q")
        assert terminal.wait() == 0
        assert terminal.modes_are_restored()


def test_list_follows_a_resized_terminal(server: Server, owner: Owner, token: Token) -> None:
    owner.start(title="Export of the orders of March 2026")
    with top(server, token(owner.name)) as terminal:
        shows(terminal, "STATE", "Export")
        for width, height in ((62, 10), (110, 40)):
            terminal.resize(width, height)
            terminal.expect(partial(has_height, terminal, height), "other height")
            assert max(map(len, terminal.frame.splitlines())) <= width
            assert ("STATE" in terminal.frame) == (width == 110)


def test_keys_sort_filter_and_search(server: Server, owner: Owner, token: Token) -> None:
    done = owner.start(age=60, title="alpha")
    owner.start(age=30, title="beta")
    owner.start(age=10, title="gamma")
    owner.complete(done)
    with top(server, token(owner.name)) as terminal:
        shows(terminal, "1 complete", "2 running")
        assert names(terminal) == ["gamma", "beta", "alpha"]
        terminal.send("ssss")
        shows(terminal, "sort: name")
        assert names(terminal) == ["alpha", "beta", "gamma"]
        terminal.send("r")
        shows(terminal, "sort: name ↑")
        assert names(terminal) == ["gamma", "beta", "alpha"]
        terminal.send("f")
        shows(terminal, "show: running")
        assert names(terminal) == ["gamma", "beta"]
        terminal.send("/BET")
        shows(terminal, "search: BET")
        assert names(terminal) == ["beta"]
        terminal.send("\x7fq")
        shows(terminal, "search: BEq")
        assert names(terminal) == []
        terminal.send("\x1b")
        shows(terminal, "/ search")
        assert names(terminal) == ["gamma", "beta"]
        terminal.send("\x1b")
        shows(terminal, "show: all")
        assert names(terminal) == ["gamma", "beta", "alpha"]


@pytest.mark.parametrize("back", ["\x1b", "q"])
def test_enter_follows_the_selected_job_and_a_key_comes_back(
    server: Server, owner: Owner, token: Token, back: str
) -> None:
    second = owner.start(age=30, title="beta")
    first = owner.start(title="gamma")
    with top(server, token(owner.name)) as terminal:
        shows(terminal, "2 running", first)
        terminal.send("\x1b[B")
        shows(terminal, second)
        terminal.send("\r")
        terminal.expect(lambda: "Esc back to the list" in terminal.text, "followed job")
        owner.publish(JobLog(job_id=second, level="warning", message="careful"))
        terminal.expect(lambda: "careful" in terminal.text, "log line")
        owner.complete(second)
        terminal.expect(lambda: "✔ complete 1" in terminal.text, "end of the job")
        terminal.send(back)
        shows(terminal, "1 complete", "1 running", second)
        terminal.send("q")
        assert terminal.wait() == 0
        assert terminal.modes_are_restored()


def test_job_that_may_be_listed_but_not_followed_is_reported(
    server: Server, owner: Owner, token: Token
) -> None:
    job_id = owner.start()
    feed = f"owner:{owner.name}"
    with top(server, token(feeds=[feed]), "--feed", feed) as terminal:
        shows(terminal, job_id)
        terminal.send("\r")
        shows(terminal, f"cannot follow {job_id}: ")


def test_top_survives_a_server_that_was_killed(
    valkey: Valkey, owner: Owner, token: Token, tmp_path: Path
) -> None:
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        job_id = owner.start()
        with top(server, token(owner.name)) as terminal:
            shows(terminal, "1 running")
            server.kill()
            shows(terminal, "reconnecting …")
            owner.complete(job_id)
            server.start()
            shows(terminal, "1 complete", job_id)


def test_refused_feed_is_reported_in_one_line(server: Server, token: Token) -> None:
    with top(server, token(), "--feed", "all") as terminal:
        assert terminal.wait() == 2
        terminal.expect(lambda: "(feed_not_allowed)" in terminal.text, "error")
        assert terminal.text.startswith("Error: ")
        assert terminal.modes_are_restored()


def test_ctrl_c_restores_the_terminal(server: Server, owner: Owner, token: Token) -> None:
    owner.start()
    with top(server, token(owner.name)) as terminal:
        shows(terminal, "1 running")
        terminal.popen.send_signal(signal.SIGINT)
        assert terminal.wait() == 130
        assert terminal.modes_are_restored()
        assert "Traceback" not in terminal.text
        _, _, end = terminal.output.rpartition("\x1b[?25l")
        assert "\x1b[?25h" in end  # the cursor is visible
        assert "\x1b[?1049l" in end  # and the main screen is back


def test_command_without_a_terminal_names_ls(server: Server) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "jobcast.cli", "top", "--url", server.url],
        env={**os.environ, "JOBCAST_JWT_SECRET": SECRET}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "Error: top needs a terminal for its display and its keys: use `jobcast ls` in scripts and"
        " pipes\n"
    )
