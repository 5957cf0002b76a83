"""The asyncio client against the real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from jobcast.client import ConnectionState, JobClient
from jobcast.errors import ConnectionRefused, InvalidJobId, JobFailed, JoinRefused
from jobcast.events import JobEvent, JobLog
from jobcast.transports import TransportPublisher, open_publisher
from tests.conftest import Valkey
from tests.support import Server, eventually, free_port, new_id, running

Token = Callable[..., str]


class Job:
    """A job that a test speaks for."""

    def __init__(self, publisher: TransportPublisher) -> None:
        self.id = new_id()
        self._publisher = publisher

    def log(self, message: str) -> None:
        self.emit("job_log", level="info", message=message)

    def emit(self, event: str, **data: object) -> None:
        self._publisher.emit(event, data, room=f"job_{self.id}")


@pytest.fixture
def job(valkey: Valkey) -> Iterator[Job]:
    publisher = open_publisher(valkey.url)
    yield Job(publisher)
    publisher.close()


class Reader:
    """Reads a job's events in a task of its own."""

    def __init__(self, client: JobClient, job_id: str) -> None:
        self.events: list[JobEvent] = []
        self.task = asyncio.create_task(self._read(client, job_id))

    async def _read(self, client: JobClient, job_id: str) -> None:
        async for event in client.follow(job_id):
            self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, JobLog)]


async def test_a_job_is_followed_to_its_end(server: Server, job: Job, token: Token) -> None:
    job.log("early")
    async with JobClient(server.url, token(jobs=[job.id])) as client:
        reader = Reader(client, job.id)
        await eventually(lambda: reader.lines == ["early"], "what was said before")
        job.log("late")
        job.emit("job_complete", result={"rows": 3})
        await reader.task
        assert reader.lines == ["early", "late"]
        assert reader.events[-1].name == "job_complete"
        assert await client.result(job.id) == {"rows": 3}


async def test_a_failure_is_raised(server: Server, job: Job, token: Token) -> None:
    job.emit("job_error", error="KeyError", message="no such row", reason="failure")
    async with JobClient(server.url, token(jobs=["*"])) as client:
        with pytest.raises(JobFailed, match="no such row") as caught:
            await client.result(job.id)
        assert (caught.value.error, caught.value.reason) == ("KeyError", "failure")


async def test_followers_of_one_job_share_a_join_and_the_last_one_leaves(
    server: Server, valkey: Valkey, job: Job, token: Token
) -> None:
    def subscribers() -> int:
        return int(valkey.command("PUBSUB", "NUMSUB", f"jobcast:{{{job.id}}}:live")[1])

    async with JobClient(server.url, token(jobs=["*"])) as client:
        job.log("one")
        first = Reader(client, job.id)
        await eventually(lambda: first.lines == ["one"], "line")
        async with aclosing(client.follow(job.id)) as events:
            assert (await anext(events)).seq == 1
            job.log("two")
            assert (await anext(events)).seq == 2
        assert server.log.count(f"joined {job.id}") == 1
        assert subscribers() == 1
        first.task.cancel()
        await eventually(lambda: subscribers() == 0, "end of the subscription")
        assert f"left {job.id}" in server.log


async def test_refusals_are_raised(server: Server, job: Job, token: Token) -> None:
    for bad, code in (("garbage", "token_invalid"), (token(ttl=-60), "token_expired")):
        with pytest.raises(ConnectionRefused) as refused:
            async with JobClient(server.url, bad):
                pass
        assert refused.value.code == code
    with pytest.raises(ConnectionRefused) as unreachable:
        async with JobClient(f"http://127.0.0.1:{free_port()}", token()):
            pass
    assert unreachable.value.code == "unreachable"
    job.log("not yours")
    async with JobClient(server.url, token()) as client:
        with pytest.raises(JoinRefused) as join:
            await client.result(job.id)
        assert (join.value.job_id, join.value.code) == (job.id, "job_not_found")
        with pytest.raises(InvalidJobId):
            await client.result("not an id")


async def test_a_killed_server_is_a_pause(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path
) -> None:
    states: list[ConnectionState] = []
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        asked: list[str] = []

        async def give() -> str:
            asked.append(token(jobs=["*"]))
            return asked[-1]

        async with JobClient(server.url, give, on_state=states.append) as client:
            reader = Reader(client, job.id)
            for n in range(5):
                job.log(str(n))
            await eventually(lambda: len(reader.lines) == 5, "lines")
            server.kill()
            await eventually(lambda: states[-1] == "reconnecting", "lost connection")
            for n in range(5, 10):
                job.log(str(n))
            server.start()
            await eventually(lambda: len(reader.lines) == 10, "lines of the pause")
            job.emit("job_complete", result=None)
            await reader.task
        assert reader.lines == [str(n) for n in range(10)]
        seqs = [event.seq for event in reader.events]
        assert seqs == list(range(1, 12))
        assert states == ["connecting", "connected", "reconnecting", "connected", "closed"]
        assert len(asked) >= 2


async def test_a_token_that_is_not_accepted_any_more_ends_it(
    valkey: Valkey, job: Job, token: Token, tmp_path: Path
) -> None:
    with running(Server(tmp_path / "log", valkey.url)) as server:
        server.ready()
        tokens = iter([token(jobs=["*"])])
        async with JobClient(server.url, lambda: next(tokens, "garbage")) as client:
            job.log("x")
            reader = Reader(client, job.id)
            await eventually(lambda: reader.lines, "line")
            server.kill()
            server.start()
            with pytest.raises(ConnectionRefused) as caught:
                await reader.task
            assert caught.value.code == "token_invalid"


async def test_a_token_is_renewed_before_it_expires(server: Server, job: Job, token: Token) -> None:
    tokens = iter([token(jobs=["*"], ttl=2)])
    states: list[ConnectionState] = []
    client = JobClient(
        server.url, lambda: next(tokens, None) or token(jobs=["*"]), on_state=states.append
    )
    async with client:
        reader = Reader(client, job.id)
        await eventually(lambda: "refreshed" in server.log, "renewal")
        expiry = time.monotonic() + 2
        await eventually(lambda: time.monotonic() > expiry, "expiry of the first token")
        job.emit("job_complete", result=1)
        await reader.task
        assert states == ["connecting", "connected"]


async def test_leaving_early_leaves_nothing(server: Server, job: Job, token: Token) -> None:
    job.log("x")
    async with JobClient(server.url, token(jobs=["*"])) as client:
        for _ in range(3):
            async with aclosing(client.follow(job.id)) as events:
                async for _event in events:
                    break
        await eventually(lambda: server.log.count(f"left {job.id}") == 3, "three leaves")
    before = asyncio.all_tasks()
    assert {task.get_name() for task in before} == {asyncio.current_task().get_name()}  # type: ignore[union-attr]
