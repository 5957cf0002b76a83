"""The demo as a process of its own: what it shows, and that nothing of it stays behind."""

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
from tests.support.marked import Mark, marked

JOBS = ("hash_tree", "import_csv", "make_thumbnails", "fetch_feed", "audit_ledger")
CODE = "import sys; from jobcast.demo.runner import run; sys.exit(run(port=%d, scale=1, once=%r))"


class Demo(Process):
    """The demo, its temporary files in a directory of its own."""

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

    def says(self, text: str) -> None:
        self.expect(lambda: text in self.log, f"{text!r}", TIMEOUT)

    def has(self, pattern: str) -> bool:
        return any(self.temporary.glob(pattern))

    def ends(self) -> int:
        return self.popen.wait(TIMEOUT)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Mark]:
    with marked(tmp_path) as mark:
        yield mark


@pytest.fixture
def demo(tmp_path: Path, mark: Mark) -> Iterator[Demo]:
    with running(Demo(tmp_path, mark)) as demo:
        yield demo


def running_parts(mark: Mark) -> set[str]:
    return {word for each in mark.processes() for word in (each.name(), *each.cmdline())}


def assert_nothing_is_left(mark: Mark, temporary: Path) -> None:
    mark.wait_until_gone()
    assert list(temporary.iterdir()) == []


def test_it_shows_how_each_job_ends_and_leaves_nothing(demo: Demo, mark: Mark) -> None:
    assert demo.ends() == 0, demo.log
    for job in JOBS:
        assert re.search(rf"{job}-[0-9a-f]{{8}}", demo.log)
    assert "LedgerError" in demo.log
    assert "All jobs ended as they should" in demo.log
    assert_nothing_is_left(mark, demo.temporary)


@pytest.mark.parametrize(
    ("signum", "moment"),
    [
        (signal.SIGINT, lambda demo: demo.has("jobcast-demo-*")),
        (signal.SIGTERM, lambda demo: demo.has("jobcast-demo-*/valkey.log")),
        (signal.SIGHUP, lambda demo: demo.has("jobcast-demo-*/samples.log")),
        (signal.SIGINT, lambda demo: demo.has("jobcast-demo-*/samples/ledger.csv")),
        (signal.SIGINT, lambda demo: "jobcast watch" in demo.log),
        (signal.SIGTERM, lambda demo: "jobcast watch" in demo.log),
    ],
    ids=["directory", "valkey", "processes", "samples", "jobs, INT", "jobs, TERM"],
)
def test_a_signal_stops_all_of_it_at_any_moment(
    demo: Demo, mark: Mark, signum: signal.Signals, moment: Callable[[Demo], bool]
) -> None:
    demo.expect(lambda: moment(demo), "moment", TIMEOUT)
    demo.popen.send_signal(signum)
    assert demo.ends() == 128 + signum, demo.log
    assert "Traceback" not in demo.log
    assert_nothing_is_left(mark, demo.temporary)


def test_a_process_that_dies_is_reported_with_its_log(demo: Demo, mark: Mark) -> None:
    demo.says("jobcast watch")
    for process in mark.processes():
        if "jobcast.demo.app:create_app" in process.cmdline():
            process.kill()
    assert demo.ends() == 1, demo.log
    assert "the realtime process ended unexpectedly (signal 9)" in demo.log
    assert "POST /api/jobs/audit_ledger" in demo.log
    assert_nothing_is_left(mark, demo.temporary)


def test_it_uses_the_server_and_the_port_that_there_are(
    tmp_path: Path, mark: Mark, valkey: Valkey
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running(Demo(tmp_path, mark, port=port, JOBCAST_URL=valkey.url)) as demo:
            assert demo.ends() == 0, demo.log
    assert f"port {port} is taken" in demo.log
    assert f"transport  {valkey.url}" in demo.log
    job = re.search(r"hash_tree-[0-9a-f]{8}", demo.log)
    assert job is not None
    with redis.Redis.from_url(valkey.url) as client:
        assert client.exists(f"jobcast:{{{job[0]}}}:state")
        assert list(client.scan_iter("*jobcast-demo-*")) == []
    assert_nothing_is_left(mark, demo.temporary)


async def test_its_console_has_the_five_jobs_and_starts_more(tmp_path: Path, mark: Mark) -> None:
    with running(Demo(tmp_path, mark, once=False)) as demo:
        demo.says("stops them")
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
        said = [event.message for event in events if isinstance(event, JobLog)]
        assert said == ["line 3: email is not an address"]
        assert visitor.jobs[0] == job_id
        assert Visitor(visitor.port, "somebody").jobs == []
        demo.popen.send_signal(signal.SIGINT)
        assert demo.ends() == 0, demo.log
    assert_nothing_is_left(mark, demo.temporary)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://:hunter2@127.0.0.1:1/0", "no answer from redis://:***@127.0.0.1:1/0"),
    ],
)
def test_a_server_that_cannot_be_used_is_said_in_a_line(
    tmp_path: Path, mark: Mark, url: str, problem: str
) -> None:
    with running(Demo(tmp_path, mark, JOBCAST_URL=url)) as demo:
        assert demo.ends() == 1, demo.log
    last = demo.log.splitlines()[-1]
    assert last.startswith("Error: ")
    assert problem in last
    assert "Traceback" not in demo.log
    assert_nothing_is_left(mark, demo.temporary)


def test_in_a_terminal_it_stays_until_ctrl_c(tmp_path: Path, mark: Mark) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    ours, theirs = pty.openpty()
    shown = b""

    def says(text: bytes) -> bool:
        nonlocal shown
        if select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 65536)
        return text in shown

    # The terminal has to be the controlling one for its Ctrl-C to become a signal.
    code = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {CODE}"
    env = {**os.environ, "JOBCAST_URL": "", "TMPDIR": str(temporary), "TERM": "xterm", **mark.env}
    process = subprocess.Popen(
        [sys.executable, "-c", code % (free_port(), None)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        wait_for(lambda: says(b"stops them"), "end of the jobs", TIMEOUT)
        last = rb"stops them.*\r\n  open http://127\.0\.0\.1:\d+\r\n$"
        wait_for(lambda: says(b"") and re.search(last, shown, re.DOTALL), "last line", TIMEOUT)
        assert {"valkey-server", "celery", "jobcast.cli"} <= running_parts(mark)
        os.write(ours, b"\x03")
        wait_for(lambda: says(b"stopping"), "answer to Ctrl-C", TIMEOUT)
        assert process.wait(TIMEOUT) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert_nothing_is_left(mark, temporary)
