"""Outages of the transport."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobcast.publishing import runtime
from tests import jobs
from tests.conftest import Valkey
from tests.support import Server, Worker, answers, eventually, following, running

Send = Callable[..., str]
Token = Callable[..., str]


def test_task_succeeds_without_redis(
    valkey: Valkey, own_valkey: Valkey, send: Send, tmp_path: Path
) -> None:
    own_valkey.kill()
    with running(Worker(tmp_path / "log", own_valkey.url, valkey.url, "--concurrency=1")) as worker:
        worker.ready()
        for _ in range(3):
            result = jobs.count.apply_async([50], queue=worker.name)
            assert worker.wait_result(result.id) == "{'steps': 50}"
        assert worker.stop() == 0
        # The child that ran the tasks logs one warning and, at its exit, the lost events.
        assert worker.log.count("jobcast cannot reach") == 1
        assert "events of jobs were not sent" in worker.log
        assert "Traceback" not in worker.log


def test_hanging_redis_does_not_delay_a_task(
    valkey: Valkey, own_valkey: Valkey, send: Send, tmp_path: Path
) -> None:
    # A suspended server accepts connections but answers nothing, the worst kind of outage.
    own_valkey.popen.send_signal(signal.SIGSTOP)
    with running(Worker(tmp_path / "log", own_valkey.url, valkey.url, "--concurrency=1")) as worker:
        worker.ready()
        result = jobs.count.apply_async([50], queue=worker.name)
        assert worker.wait_result(result.id) == "{'steps': 50}"
        own_valkey.popen.send_signal(signal.SIGCONT)


@pytest.fixture
def services(
    sender: None,
    valkey: Valkey,
    own_valkey: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Server, Worker]]:
    """A server and a worker with a Valkey transport that the test may stop."""
    arguments = ["--pool=prefork", "--concurrency=1"]
    with (
        running(Server(tmp_path / "server.log", own_valkey.url)) as server,
        running(Worker(tmp_path / "worker.log", own_valkey.url, valkey.url, *arguments)) as worker,
    ):
        server.ready()
        worker.ready()
        monkeypatch.setenv("JOBCAST_URL", own_valkey.url)
        runtime.close()
        yield server, worker


async def test_events_published_during_an_outage_arrive_in_order(
    services: tuple[Server, Worker], own_valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    (server, worker), gate = services, tmp_path / "gate"
    job_id = send(worker, jobs.count, 10, str(gate))
    async with following(server.url, token(jobs=[job_id])) as alice:
        assert (await alice.join(job_id))["ok"]
        await alice.transcript.wait_logged(job_id, 6)
        own_valkey.kill()
        await eventually(lambda: answers(f"{server.url}/readyz", 503), "unready server")
        assert answers(f"{server.url}/healthz")
        gate.touch()
        await eventually(lambda: "jobcast cannot reach" in worker.log, "warning of the worker")
        # The outage does not affect the client's connection.
        assert alice.client.connected
        own_valkey.start()
        own_valkey.ready()
        await alice.transcript.end(job_id)
        messages = [e["message"] for e in alice.transcript.of(job_id, "job_log")]
        assert messages == [f"step {n}" for n in range(10)]
        assert alice.transcript.names(job_id)[-1] == "job_complete"
        await eventually(lambda: answers(f"{server.url}/readyz"), "ready server")
    assert worker.log.count("jobcast cannot reach") == 1
    assert "Traceback" not in server.log


async def test_cut_pubsub_connection_loses_no_events(
    services: tuple[Server, Worker], own_valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    (server, worker), gate = services, tmp_path / "gate"
    job_id = send(worker, jobs.count, 40, str(gate))
    async with following(server.url, token()) as alice:
        assert (await alice.join(job_id))["ok"]
        await alice.transcript.wait_logged(job_id, 21)
        own_valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
        gate.touch()
        await alice.transcript.end(job_id)
        messages = [e["message"] for e in alice.transcript.of(job_id, "job_log")]
        assert messages == [f"step {n}" for n in range(40)]
        seqs = alice.transcript.seqs(job_id)
        assert seqs == sorted(set(seqs))
