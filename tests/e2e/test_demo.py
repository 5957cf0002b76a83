"""The demo in a separate process: its output, its exit and its cleanup."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from jobcast.client import JobClient
from jobcast.events import JobComplete, JobLog
from tests.conftest import Valkey
from tests.support import TIMEOUT, Process, free_port, running, wait_for
from tests.support.console import PEOPLE, Visitor
from tests.support.process_mark import Mark, process_mark

JOBS = ("hash_tree", "import_csv", "make_thumbnails", "fetch_feed", "audit_ledger")
CODE = "import sys; from jobcast.demo.runner import run; sys.exit(run(port=%d, scale=1, once=%r))"


class Demo(Process):
    """The demo process, with a separate directory for its temporary files."""

    def __init__(
        self, directory: Path, mark: Mark, *, port: int = 0, once: bool | None = True, **env: str
    ) -> None:
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self.port = port or free_port()
        super().__init__(
            [sys.executable, "-c", CODE % (self.port, once)],
            directory / "demo.log",
            {"JOBCAST_URL": "", "TMPDIR": str(self.temporary), **mark.env, **env},
        )

    def wait_for_output(self, text: str) -> None:
        self.expect(lambda: text in self.log, f"{text!r}", TIMEOUT)

    def has_file(self, pattern: str) -> bool:
        return any(self.temporary.glob(pattern))

    def wait_for_exit(self) -> int:
        return self.popen.wait(TIMEOUT)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Mark]:
    with process_mark(tmp_path) as mark:
        yield mark


@pytest.fixture
def demo(tmp_path: Path, mark: Mark) -> Iterator[Demo]:
    with running(Demo(tmp_path, mark)) as demo:
        yield demo


def running_commands(mark: Mark) -> set[str]:
    return {word for each in mark.processes() for word in (each.name(), *each.cmdline())}


def assert_cleaned_up(mark: Mark, temporary: Path) -> None:
    mark.wait_until_gone()
    assert list(temporary.iterdir()) == []


def test_demo_shows_each_outcome_and_cleans_up(demo: Demo, mark: Mark) -> None:
    assert demo.wait_for_exit() == 0, demo.log
    for job in JOBS:
        assert re.search(rf"{job}-[0-9a-f]{{8}}", demo.log)
    assert "LedgerError" in demo.log
    assert "All jobs ended as they should" in demo.log
    assert_cleaned_up(mark, demo.temporary)


@pytest.mark.parametrize(
    ("signum", "stage_reached"),
    [
        (signal.SIGINT, lambda demo: demo.has_file("jobcast-demo-*")),
        (signal.SIGTERM, lambda demo: demo.has_file("jobcast-demo-*/valkey.log")),
        (signal.SIGHUP, lambda demo: demo.has_file("jobcast-demo-*/samples.log")),
        (signal.SIGINT, lambda demo: demo.has_file("jobcast-demo-*/samples/ledger.csv")),
        (signal.SIGINT, lambda demo: "jobcast watch" in demo.log),
        (signal.SIGTERM, lambda demo: "jobcast watch" in demo.log),
    ],
    ids=["directory", "valkey", "processes", "samples", "jobs, INT", "jobs, TERM"],
)
def test_signal_at_any_stage_stops_all_processes_and_cleans_up(
    demo: Demo, mark: Mark, signum: signal.Signals, stage_reached: Callable[[Demo], bool]
) -> None:
    demo.expect(lambda: stage_reached(demo), "stage", TIMEOUT)
    demo.popen.send_signal(signum)
    assert demo.wait_for_exit() == 128 + signum, demo.log
    assert "Traceback" not in demo.log
    assert_cleaned_up(mark, demo.temporary)


def test_unexpected_exit_of_a_process_is_reported_with_its_log(demo: Demo, mark: Mark) -> None:
    demo.wait_for_output("jobcast watch")
    for process in mark.processes():
        if "jobcast.demo.app:create_app" in process.cmdline():
            process.kill()
    assert demo.wait_for_exit() == 1, demo.log
    assert "the realtime process ended unexpectedly (signal 9)" in demo.log
    assert "POST /api/jobs/audit_ledger" in demo.log
    assert_cleaned_up(mark, demo.temporary)


def test_demo_uses_the_configured_server_and_avoids_a_taken_port(
    tmp_path: Path, mark: Mark, valkey: Valkey
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(Demo(tmp_path, mark, port=port, JOBCAST_URL=valkey.url)) as demo:
            assert demo.wait_for_exit() == 0, demo.log
    assert f"port {port} is taken" in demo.log
    assert f"transport  {valkey.url}" in demo.log
    job = re.search(r"hash_tree-[0-9a-f]{8}", demo.log)
    assert job is not None
    with redis.Redis.from_url(valkey.url) as client:
        assert client.exists(f"jobcast:{{{job[0]}}}:state")
        assert list(client.scan_iter("*jobcast-demo-*")) == []
    assert_cleaned_up(mark, demo.temporary)


async def test_demo_console_lists_its_jobs_and_starts_more(tmp_path: Path, mark: Mark) -> None:
    with running(Demo(tmp_path, mark, once=False)) as demo:
        demo.wait_for_output("stops them")
        found = re.search(r"open (http://127\.0\.0\.1:\d+)\n", demo.log)
        assert found is not None
        visitor = Visitor(urlsplit(found[1]).port or 0, "demo")
        assert [job_id.rpartition("-")[0] for job_id in visitor.jobs] == list(reversed(JOBS))
        assert all(job_id in demo.log for job_id in visitor.jobs)
        assert b'<div id="root">' in visitor.get("/").body
        job_id = visitor.upload("import_csv", PEOPLE).json["job_id"]
        async with JobClient(found[1], visitor.token) as client:
            events = [event async for event in client.follow(job_id)]
        assert isinstance(events[-1], JobComplete)
        assert events[-1].result == {"imported": 1, "rejected": 1}
        messages = [event.message for event in events if isinstance(event, JobLog)]
        assert messages == ["line 3: email is not an address"]
        assert visitor.jobs[0] == job_id
        assert Visitor(visitor.port, "somebody").jobs == []
        demo.popen.send_signal(signal.SIGINT)
        assert demo.wait_for_exit() == 0, demo.log
    assert_cleaned_up(mark, demo.temporary)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://:hunter2@127.0.0.1:1/0", "no answer from redis://:***@127.0.0.1:1/0"),
    ],
)
def test_unreachable_server_is_reported_in_one_line(
    tmp_path: Path, mark: Mark, url: str, problem: str
) -> None:
    with running(Demo(tmp_path, mark, JOBCAST_URL=url)) as demo:
        assert demo.wait_for_exit() == 1, demo.log
    last = demo.log.splitlines()[-1]
    assert last.startswith("Error: ")
    assert problem in last
    assert "Traceback" not in demo.log
    assert_cleaned_up(mark, demo.temporary)


def test_demo_in_a_terminal_runs_until_ctrl_c(tmp_path: Path, mark: Mark) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ours, theirs = pty.openpty()
    shown = b""

    def has_shown(text: bytes) -> bool:
        nonlocal shown
        if select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 65536)
        return text in shown

    # Ctrl-C becomes a signal only in the controlling terminal of the process.
    code = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {CODE}"
    env = {**os.environ, "JOBCAST_URL": "", "TMPDIR": str(temporary), "TERM": "xterm", **mark.env}
    process = subprocess.Popen(
        [sys.executable, "-c", code % (free_port(), None)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        wait_for(lambda: has_shown(b"stops them"), "end of the jobs", TIMEOUT)
        last = rb"stops them.*\r\n  open http://127\.0\.0\.1:\d+\r\n$"
        wait_for(lambda: has_shown(b"") and re.search(last, shown, re.DOTALL), "last line", TIMEOUT)
        assert {"valkey-server", "celery", "jobcast.cli"} <= running_commands(mark)
        os.write(ours, b"\x03")
        wait_for(lambda: has_shown(b"stopping"), "reaction to Ctrl-C", TIMEOUT)
        assert process.wait(TIMEOUT) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert_cleaned_up(mark, temporary)
