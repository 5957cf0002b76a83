"""The transport goes away, and comes back."""

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


def test_a_task_is_unharmed_when_redis_is_not_there(
    valkey: Valkey, own_valkey: Valkey, send: Send, tmp_path: Path
) -> None:
    own_valkey.kill()
    with running(Worker(tmp_path / "log", own_valkey.url, valkey.url, "--concurrency=1")) as worker:
        worker.ready()
        for _ in range(3):
            result = jobs.count.apply_async([50], queue=worker.name)
            assert worker.wait_result(result.id) == "{'steps': 50}"
        assert worker.stop() == 0
        # From the child that ran the tasks: one warning, and at its end what was lost.
        assert worker.log.count("jobcast cannot reach") == 1
        assert "events of jobs were not sent" in worker.log
        assert "Traceback" not in worker.log


def test_redis_that_hangs_does_not_hold_up_a_task(
    valkey: Valkey, own_valkey: Valkey, send: Send, tmp_path: Path
) -> None:
    # It accepts connections and answers nothing: the worst way of being down.
    own_valkey.popen.send_signal(signal.SIGSTOP)
    with running(Worker(tmp_path / "log", own_valkey.url, valkey.url, "--concurrency=1")) as worker:
        worker.ready()
        result = jobs.count.apply_async([50], queue=worker.name)
        assert worker.wait_result(result.id) == "{'steps': 50}"
        own_valkey.popen.send_signal(signal.SIGCONT)


@pytest.fixture
def apart(
    sender: None,
    valkey: Valkey,
    own_valkey: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Server, Worker]]:
    """A server and a worker whose events go through a Valkey that the test may stop."""
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


async def test_what_was_said_during_an_outage_arrives_in_order(
    apart: tuple[Server, Worker], own_valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    (server, worker), gate = apart, tmp_path / "gate"
    job_id = send(worker, jobs.count, 10, str(gate))
    async with following(server.url, token(jobs=[job_id])) as alice:
        assert (await alice.join(job_id))["ok"]
        await alice.transcript.wait_logged(job_id, 6)
        own_valkey.kill()
        await eventually(lambda: answers(f"{server.url}/readyz", 503), "unready server")
        assert answers(f"{server.url}/healthz")
        gate.touch()
        await eventually(lambda: "jobcast cannot reach" in worker.log, "warning of the worker")
        # The connection of the client has nothing to do with it.
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


async def test_a_pubsub_connection_that_is_cut_loses_nothing(
    apart: tuple[Server, Worker], own_valkey: Valkey, send: Send, token: Token, tmp_path: Path
) -> None:
    (server, worker), gate = apart, tmp_path / "gate"
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
