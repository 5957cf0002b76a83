"""The client and ``jobcast watch`` read messages of later servers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from jobcast.cli.watch import watch
from jobcast.client import JobClient
from jobcast.errors import JobFailed
from jobcast.events import (
    JOB_EVENTS,
    JobComplete,
    JobError,
    JobEvent,
    JobGap,
    JobLog,
    JobProgress,
    JobStatus,
    now,
)
from jobcast.transports import TransportPublisher, open_publisher
from jobcast.transports.base import Outgoing
from tests.conftest import Valkey
from tests.support import TIMEOUT, Server, eventually
from tests.support.scripted_server import scripted_server

Token = Callable[..., str]

FUTURE: Final = Path(__file__).parents[2] / "protocol" / "examples" / "future"
EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    example["message"]: example["payload"]
    for path in sorted(FUTURE.glob("*.json"))
    for example in [json.loads(path.read_text("utf-8"))]
}


def future(job_id: str, name: str) -> Outgoing:
    """Return the example of an event as a later worker would publish it."""
    payload = {**EXAMPLES[name], "job_id": job_id, "timestamp": now().isoformat()}
    del payload["seq"]
    ends = {"job_complete": "complete", "job_error": "error"}
    return Outgoing(
        job_id=job_id,
        kind=JOB_EVENTS[name].kind if name in JOB_EVENTS else "l",
        head=f'42["{name}",{json.dumps(payload)[:-1]},"seq":',
        state=ends.get(name, payload.get("status")),
    )


@pytest.fixture
def publisher(valkey: Valkey) -> Iterator[TransportPublisher]:
    publisher = open_publisher(valkey.url)
    yield publisher
    publisher.close()


async def test_client_keeps_unknown_values_and_ends_with_an_unknown_reason(
    server: Server, publisher: TransportPublisher, token: Token, job_id: str
) -> None:
    names = ["job_status", "job_log", "job_value", "job_progress"]
    publisher.publish([future(job_id, name) for name in names])
    events: list[JobEvent | JobGap] = []
    async with JobClient(server.url, token(jobs=["*"])) as client, asyncio.timeout(TIMEOUT):
        async with aclosing(client.follow(job_id)) as following:
            async for event in following:
                events.append(event)
                if isinstance(event, JobProgress):
                    assert client.status(job_id) == "paused"
                    publisher.publish([future(job_id, "job_error")])
        status, line, progress, end = events
        assert isinstance(status, JobStatus)
        assert status.status == "paused"
        assert isinstance(line, JobLog)
        assert line.level == "notice"
        assert isinstance(progress, JobProgress)
        assert isinstance(end, JobError)
        assert end.reason == "abandoned"
        with pytest.raises(JobFailed, match="ada abandoned the job") as caught:
            await client.result(job_id)
        assert caught.value.reason == "abandoned"


async def test_result_with_unknown_fields_is_returned(
    server: Server, publisher: TransportPublisher, token: Token, job_id: str
) -> None:
    publisher.publish([future(job_id, "job_complete")])
    async with JobClient(server.url, token(jobs=["*"])) as client, asyncio.timeout(TIMEOUT):
        assert await client.result(job_id) == EXAMPLES["job_complete"]["result"]


async def test_watch_shows_unknown_values_and_exits_after_an_unknown_reason(
    server: Server, publisher: TransportPublisher, token: Token, job_id: str
) -> None:
    names = ["job_status", "job_log", "job_value", "job_progress", "job_error"]
    publisher.publish([future(job_id, name) for name in names])
    console = Console(file=StringIO(), width=200)
    async with asyncio.timeout(TIMEOUT):
        assert await watch(server.url, token(jobs=["*"]), [job_id], console=console) == 1
    assert isinstance(console.file, StringIO)
    status, line, end = console.file.getvalue().splitlines()
    assert status.endswith("• paused: the job is paused")
    assert line.endswith("notice   read 40 images")
    assert end.endswith("✖ Abandoned (abandoned) ada abandoned the job")


async def test_client_reads_every_example_of_the_future(caplog: pytest.LogCaptureFixture) -> None:
    job_id, first = EXAMPLES["joined"]["job_id"], EXAMPLES["joined"]["seq"] + 1
    names = ["job_gap", "job_status", "job_log", "job_progress", "job_value", "job_complete"]
    feeds = ["feed_snapshot", "feed_job", "feed_moved"]  # of a feed that the client has left
    others = {"hello", "joined", "join_job.ack", "cancel_job.ack", "job_error"}
    assert EXAMPLES.keys() == {*others, *names, *feeds}

    async with scripted_server() as server:

        async def join() -> dict[str, Any]:
            await server.emit("hello", EXAMPLES["hello"])
            for name in feeds:
                await server.emit(name, EXAMPLES[name])
            await server.emit("joined", EXAMPLES["joined"])
            for seq, name in enumerate(names, first):
                numbered = {"seq": seq} if "seq" in EXAMPLES[name] else {"before": seq}
                await server.emit(name, {**EXAMPLES[name], **numbered})
            return EXAMPLES["join_job.ack"]

        server.handle_join = join
        with caplog.at_level(logging.WARNING, "jobcast"):
            async with JobClient(server.url, "token") as client, asyncio.timeout(TIMEOUT):
                events = [event async for event in client.follow(job_id)]
                await eventually(lambda: client.features is not None, "hello")
                assert client.features == frozenset(EXAMPLES["hello"]["features"])
    kinds = [JobGap, JobStatus, JobLog, JobProgress, JobComplete]
    assert [type(event) for event in events] == kinds
    assert caplog.records == []
