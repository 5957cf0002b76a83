"""Two attempts of a job whose events reach the store in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.chaos import Proxy
from jobcast.events import now
from jobcast.publishing.job import Job
from jobcast.publishing.publisher import Publisher
from jobcast.realtime.relay import Relay
from jobcast.testing import new_job_id
from jobcast.transports import Origin, Run, open_manager, open_publisher
from tests.conftest import Valkey
from tests.support import StubRuntime, eventually
from tests.support.recorder import Recorder

LINES = 20
FIRST = [f"first {n}" for n in range(LINES)]
SECOND = [f"second {n}" for n in range(LINES)]


class Attempts:
    """A followed job with two attempts, whose workers reach the store only later."""

    def __init__(self, port: int, proxies: list[Proxy], publishers: list[Publisher]) -> None:
        self.job_id = new_job_id()
        self.follower = Recorder("1")
        self._port = port
        self._proxies = proxies
        self._publishers = publishers

    def run(self) -> None:
        after = ""
        for attempt, (publisher, lines) in enumerate(
            zip(self._publishers, (FIRST, SECOND), strict=True), 1
        ):
            origin = Origin("alice", Run("a" * 12, attempt, str(attempt) * 12), after)
            job = Job(StubRuntime(publisher), self.job_id, origin=origin, waits=False)
            job.started()
            for line in lines:
                job.log(line)
            if attempt == 1:
                job.retrying(retry_at=now())
                after = job.last_event_ref
            else:
                job.complete(2)

    def let_through(self, attempt: int) -> None:
        """Connect the worker of an attempt to the store."""
        self._proxies[attempt - 1].target = self._port

    @property
    def is_held(self) -> bool:
        return self.job_id in self._publishers[1]._held

    @property
    def attempts(self) -> list[int | None]:
        """The `attempt` field of each log line, None where it is absent."""
        return [
            payload.get("attempt") for name, payload in self.follower.events if name == "job_log"
        ]


@pytest.fixture
async def attempts(own_valkey: Valkey) -> AsyncIterator[Attempts]:
    proxies = [Proxy(), Proxy()]
    for proxy in proxies:
        await proxy.start()
    publishers = [
        Publisher(open_publisher(f"redis://127.0.0.1:{proxy.port}/0"), shown_url="the store")
        for proxy in proxies
    ]
    manager = open_manager(own_valkey.url)
    relay = Relay(manager.source)
    relay.start()
    attempts = Attempts(own_valkey.port, proxies, publishers)
    await eventually(lambda: relay.ready, "relay that is ready")
    await relay.join(attempts.job_id, attempts.follower)
    attempts.run()
    yield attempts
    for publisher in publishers:
        await asyncio.to_thread(publisher.close)
    await relay.aclose()
    await manager.aclose()
    for proxy in proxies:
        await proxy.aclose()


async def test_retry_waits_for_the_previous_attempt_without_a_record(
    attempts: Attempts,
) -> None:
    attempts.let_through(2)
    await eventually(lambda: attempts.is_held, "held retry")
    attempts.let_through(1)
    await eventually(lambda: "job_complete" in attempts.follower.names, "end")
    assert attempts.follower.lines == [*FIRST, *SECOND]
    assert set(attempts.attempts) == {None}
    statuses = [p["status"] for name, p in attempts.follower.events if name == "job_status"]
    assert statuses == ["started", "retrying", "started"]


async def test_late_lines_of_an_abandoned_attempt_carry_its_number(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.publishing.held.HELD_TIMEOUT", 0.2)
    attempts.let_through(2)
    await eventually(lambda: "job_complete" in attempts.follower.names, "end")
    attempts.let_through(1)
    await eventually(lambda: len(attempts.follower.lines) == 2 * LINES, "late lines")
    assert attempts.follower.lines == [*SECOND, *FIRST]
    assert attempts.attempts == [None] * LINES + [1] * LINES
    assert [name for name in attempts.follower.names if name != "joined"] == [
        "job_status", *["job_log"] * LINES, "job_complete", *["job_log"] * LINES,
    ]  # fmt: skip
    assert attempts.follower.seqs == sorted(set(attempts.follower.seqs))
