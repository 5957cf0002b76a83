"""The clients of docs/how-to/follow-over-http.md, run as the page writes them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jobcast.transports import open_publisher
from tests import jobs
from tests.conftest import Valkey
from tests.e2e.documented import Page
from tests.e2e.test_proxies import running_proxy
from tests.support import (
    SECRET,
    TIMEOUT,
    Process,
    Server,
    Worker,
    answers,
    free_port,
    running,
    wait_for,
)
from tests.support.node import node_command
from tests.support.sse import EventReader, http_client, read_stream, read_until, streaming

Send = Callable[..., str]
Token = Callable[..., str]

PAGE = Page("docs/how-to/follow-over-http.md")
FOLLOW_BY_CURL, WAIT_BY_CURL, RESUME_BY_CURL = PAGE.commands
[FOLLOW_BY_HTTPX, _] = PAGE.code_blocks("python")
[FOLLOW_BY_FETCH, FOLLOW_BY_EVENT_SOURCE] = PAGE.code_blocks("js")

STEPS = 10
LINES = [f"step {number}" for number in range(STEPS)]

BUFFERING_NGINX = """
server {
    listen 80;
    location /progress/ {
        proxy_pass http://127.0.0.1:8000;
        proxy_http_version 1.1;
        proxy_buffering on;
        proxy_set_header Host $http_host;
        proxy_set_header Connection "";
    }
}
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def half_way(send: Send, worker: Worker, gate: Path) -> str:
    """The id of a job that continues after half of its steps when the gate exists."""
    return send(worker, jobs.count, STEPS, str(gate))


@contextmanager
def shell(line: str, url: str, token: str, job_id: str, output: Path, **env: str) -> Iterator[Any]:
    """Run a command of the page, with its output in a file."""
    variables = {"URL": url, "TOKEN": token, "JOB_ID": job_id, **env}
    with output.open("w") as stdout:
        process = subprocess.Popen(
            ["sh", "-c", line], env={**os.environ, **variables}, stdout=stdout
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read_file(path: Path) -> EventReader:
    reader = EventReader()
    reader.feed(path.read_text())
    return reader


def is_complete(reader: EventReader) -> None:
    """Check that a transcript has every event of the job once, in order."""
    assert [event["message"] for event in reader.of("job_log")] == LINES
    assert reader.seqs == sorted(set(reader.seqs))
    assert reader.names[0] == "joined"
    assert reader.names[-1] == "job_complete"
    assert reader.of("job_complete")[0]["result"] == {"steps": STEPS}


def test_curl_follows_a_job_while_it_runs(
    server: Server, half_way: str, token: Token, gate: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with shell(FOLLOW_BY_CURL, server.url, token(), half_way, output) as curl:
        wait_for(lambda: "step 5" in output.read_text(), "half of the job")
        cursor = read_file(output).last_id
        gate.touch()
        assert curl.wait(TIMEOUT) == 0
    is_complete(read_file(output))
    rest = tmp_path / "rest"
    with shell(RESUME_BY_CURL, server.url, token(), half_way, rest, CURSOR=cursor) as curl:
        assert curl.wait(TIMEOUT) == 0
    assert read_file(output).seqs[-len(read_file(rest).seqs) :] == read_file(rest).seqs


def test_curl_waits_for_the_result(
    server: Server, half_way: str, token: Token, gate: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    with shell(WAIT_BY_CURL, server.url, token(), half_way, output) as curl:
        wait_for(lambda: f"joined {half_way}" in server.log, "waiting request")
        gate.touch()
        assert curl.wait(TIMEOUT) == 0
    state = json.loads(output.read_text())
    assert (state["status"], state["result"]) == ("complete", {"steps": STEPS})
    assert state["task"] == jobs.count.name


def test_httpx_keeps_a_message_with_a_unicode_line_separator(
    server: Server, valkey: Valkey, token: Token, job_id: str
) -> None:
    publisher = open_publisher(valkey.url)
    room = f"job_{job_id}"
    publisher.emit("job_log", {"level": "info", "message": "a\u2028b"}, room=room)
    publisher.emit("job_complete", {"result": 7}, room=room)
    publisher.close()
    namespace: dict[str, Any] = {}
    exec(FOLLOW_BY_HTTPX, namespace)
    events = dict(namespace["follow"](server.url, token(jobs=[job_id]), job_id))
    assert events["job_log"]["message"] == "a\u2028b"
    assert events["job_complete"]["result"] == 7


def test_httpx_follows_a_job(server: Server, half_way: str, token: Token, gate: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(FOLLOW_BY_HTTPX, namespace)
    lines: list[str] = []
    name = ""
    for name, data in namespace["follow"](server.url, token(), half_way):
        if name == "job_log":
            lines.append(data["message"])
            if len(lines) == STEPS // 2:
                gate.touch()
    assert lines == LINES
    assert name == "job_complete"


def test_fetch_follows_a_job(
    server: Server, half_way: str, token: Token, gate: Path, tmp_path: Path
) -> None:
    script = tmp_path / "follow.mjs"
    script.write_text(
        f"const [url, token, job_id] = process.argv.slice(2);\n{FOLLOW_BY_FETCH}", "utf-8"
    )
    output = tmp_path / "output"
    with output.open("w") as stdout:
        node = subprocess.Popen(
            [node_command("node"), str(script), server.url, token(), half_way], stdout=stdout
        )
    try:
        wait_for(lambda: "step 5" in output.read_text(), "half of the job")
        gate.touch()
        assert node.wait(TIMEOUT) == 0
    finally:
        node.kill()
        node.wait()
    events = [line.split(" ", 1) for line in output.read_text().splitlines()]
    assert [json.loads(data)["message"] for name, data in events if name == "job_log"] == LINES
    assert events[-1][0] == "job_complete"


async def test_stream_passes_a_buffering_nginx_with_a_path_prefix(
    valkey: Valkey, half_way: str, token: Token, gate: Path, tmp_path: Path
) -> None:
    env = {"JOBCAST_PATH_PREFIX": "/progress"}
    with (
        running(Server(tmp_path / "log", valkey.url, env)) as server,
        running_proxy("nginx", BUFFERING_NGINX, server.port, tmp_path / "nginx") as proxy,
    ):
        proxy.expect(lambda: answers(f"{proxy.url}/progress/readyz"), "answer through nginx")
        async with http_client(f"{proxy.url}/progress", token()) as client:
            async with streaming(client, f"/jobs/{half_way}/events") as (reader, chunks):
                # The events of the running job arrive before the response ends.
                await read_until(reader, chunks, "job_log", STEPS // 2)
                gate.touch()
                async for _ in chunks:
                    pass
            is_complete(reader)
            state = (await client.get(f"/jobs/{half_way}")).json()
            assert state["status"] == "complete"


class Site(NamedTuple):
    """``jobcast serve`` with several processes."""

    process: Process
    url: str


@pytest.fixture
def four_workers(valkey: Valkey, tmp_path: Path) -> Iterator[Site]:
    port = free_port()
    argv = [
        sys.executable, "-m", "jobcast.cli", "serve", "--port", str(port), "--workers", "4",
    ]  # fmt: skip
    env = {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET}
    with running(Process(argv, tmp_path / "serve.log", env)) as process:
        url = f"http://127.0.0.1:{port}"
        process.expect(lambda: process.log.count("startup complete") == 4, "four processes")
        process.expect(lambda: answers(f"{url}/readyz"), "answer of /readyz")
        yield Site(process, url)


async def test_no_request_depends_on_the_process_that_served_the_one_before(
    four_workers: Site, half_way: str, token: Token, gate: Path
) -> None:
    path = f"/jobs/{half_way}/events"
    seqs: list[int] = []
    cursor = ""
    # Each client has a connection of its own, so the kernel chooses a process for each.
    for number in range(1, 1 + STEPS // 2):
        async with http_client(four_workers.url, token()) as client:
            async with streaming(client, path, **{"Last-Event-ID": cursor}) as (reader, chunks):
                while not any(seq > number for seq in reader.seqs):
                    await anext(chunks)
        seen = next(event for event in reader.events if event.data["seq"] > number and event.id)
        taken = reader.events[: reader.events.index(seen) + 1]
        seqs += [event.data["seq"] for event in taken if event.id]
        cursor = seen.id
    gate.touch()
    async with http_client(four_workers.url, token()) as client:
        rest = await read_stream(client, path, **{"Last-Event-ID": cursor})
    async with http_client(four_workers.url, token()) as client:
        whole = await read_stream(client, path)
        assert (await client.get(f"/jobs/{half_way}?wait=5")).json()["status"] == "complete"
        again = await asyncio.gather(
            *(client.get(path, headers={"Last-Event-ID": whole.last_id}) for _ in range(8))
        )
    assert {answer.status_code for answer in again} == {204}
    assert [seq for seq in [*seqs, *rest.seqs] if seq in whole.seqs] == whole.seqs
    is_complete(whole)
