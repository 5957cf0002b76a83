"""A worker and a Socket.IO process whose events go through RabbitMQ."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import socketio
from kombu.connection import Connection

from jobcast.publishing import runtime
from tests import jobs
from tests.conftest import Valkey
from tests.support import (
    SECRET,
    TIMEOUT,
    Follower,
    Process,
    Server,
    Transcript,
    Worker,
    answers,
    eventually,
    following,
    free_port,
    running,
)
from tests.support.rabbitmq import RabbitMQ

Send = Callable[..., str]
Token = Callable[..., str]

ONE_CHILD = "--pool=prefork", "--concurrency=1"


@contextmanager
def apart(
    folder: Path, events: str, broker: str, results: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Server, Worker]]:
    """A server and a worker, and this process as the sender."""
    env = {"CELERY_RESULT_BACKEND": results}
    with (
        running(Server(folder / "server.log", events)) as server,
        running(Worker(folder / "worker.log", events, broker, *ONE_CHILD, env=env)) as worker,
    ):
        server.ready()
        worker.ready()
        monkeypatch.setenv("JOBCAST_URL", events)
        runtime.close()
        yield server, worker


def lines(follower: Follower, job_id: str) -> list[str]:
    return [event["message"] for event in follower.transcript.of(job_id, "job_log")]


async def test_a_job_is_followed_live_and_by_who_comes_late(
    rabbitmq: RabbitMQ, valkey: Valkey, send: Send, token: Token, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """RabbitMQ is Celery's broker too."""
    gate = tmp_path / "gate"
    with (
        apart(tmp_path, rabbitmq.url, rabbitmq.url, valkey.url, monkeypatch) as (server, worker),
        Connection(rabbitmq.url) as broker,
    ):
        job_id = send(worker, jobs.count, 10, str(gate), connection=broker)
        async with (
            following(server.url, token()) as alice,
            following(server.url, token()) as late,
            following(server.url, token("mallory")) as mallory,
        ):
            # Who asks before the sender's word has come is told that there is no such job.
            await _joined(alice, job_id)
            assert (await mallory.join(job_id))["code"] == "job_not_found"
            await alice.transcript.wait_logged(job_id, 6)
            gate.touch()
            await alice.transcript.end(job_id)
            assert lines(alice, job_id) == [f"step {n}" for n in range(10)]
            joined = await late.join(job_id)
            assert joined["status"] == "complete"
            await late.transcript.end(job_id)
            assert lines(late, job_id) == [f"step {n}" for n in range(10)]
            statuses = [e["status"] for e in late.transcript.of(job_id, "job_status")]
            assert statuses == ["queued", "started"]
            after = {"epoch": joined["epoch"], "seq": joined["seq"] - 1}
            again = await late.join(job_id, after=after)
            assert again["recovered"] is True
        assert "Traceback" not in server.log


async def _joined(follower: Follower, job_id: str) -> None:
    for _ in range(200):
        if (await follower.join(job_id))["ok"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{job_id} could not be joined")


def test_doctor_sees_an_event_go_through(rabbitmq: RabbitMQ) -> None:
    doctor = [sys.executable, "-m", "jobcast.cli", "doctor"]
    env = {**os.environ, "JOBCAST_URL": rabbitmq.url, "JOBCAST_JWT_SECRET": SECRET}
    done = subprocess.run(doctor, env=env, capture_output=True, text=True, timeout=TIMEOUT)
    assert "an event went through amqp://guest:***@127.0.0.1" in done.stdout
    assert done.stderr == ""


async def test_a_broker_that_crashes_in_mid_stream_loses_nothing(
    rabbitmq: RabbitMQ, valkey: Valkey, send: Send, token: Token, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    gate = tmp_path / "gate"
    with apart(tmp_path, rabbitmq.url, valkey.url, valkey.url, monkeypatch) as (server, worker):
        job_id = send(worker, jobs.tick, str(gate))
        async with following(server.url, token()) as alice:
            await _joined(alice, job_id)
            await eventually(lambda: len(lines(alice, job_id)) > 20, "20 lines")
            rabbitmq.crash()
            await eventually(lambda: answers(f"{server.url}/readyz", 503), "unready server")
            await asyncio.to_thread(rabbitmq.start)
            await asyncio.to_thread(rabbitmq.ready)
            await eventually(lambda: answers(f"{server.url}/readyz"), "ready server")
            before = len(lines(alice, job_id))
            await eventually(lambda: len(lines(alice, job_id)) > before + 20, "further lines")
            gate.touch()
            end = await alice.transcript.end(job_id)
            assert lines(alice, job_id) == [f"tick {n}" for n in range(end["result"])]
            seqs = alice.transcript.seqs(job_id)
            assert seqs == sorted(set(seqs))
            assert alice.client.connected
        assert worker.log.count("jobcast cannot reach") == 1
        assert "Traceback" not in server.log


async def test_a_stock_server_on_the_channel_gets_the_events_too(
    rabbitmq: RabbitMQ, valkey: Valkey, send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-socketio alone, with ``AsyncAioPikaManager``, and a room that its handler enters."""
    gate, port = tmp_path / "gate", free_port()
    stock = Process(
        [sys.executable, "-m", "uvicorn", "tests.stock_server:app", "--port", str(port)],
        tmp_path / "stock.log",
        {"STOCK_URL": rabbitmq.url, "STOCK_CHANNEL": "stock"},
    )
    events = f"{rabbitmq.url}?channel=stock"
    with (
        running(stock),
        apart(tmp_path, events, valkey.url, valkey.url, monkeypatch) as (_, worker),
    ):
        stock.expect(lambda: "startup complete" in stock.log, "stock server")
        job_id = send(worker, jobs.count, 10, str(gate))
        transcript = Transcript()
        client = socketio.AsyncClient(handle_sigint=False, reconnection=False)
        client.on("*", lambda event, data: transcript.events.append((event, data)))
        await client.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
        try:
            assert await client.call("follow", job_id, timeout=TIMEOUT)
            await eventually(lambda: _listens(rabbitmq), "stock server that listens")
            gate.touch()
            end = await transcript.end(job_id)
            assert end["result"] == {"steps": 10}
            said = [event["message"] for event in transcript.of(job_id, "job_log")]
            assert said[-4:] == [f"step {n}" for n in range(6, 10)]
            assert transcript.of(job_id, "job_progress")
        finally:
            await client.disconnect()


def _listens(rabbitmq: RabbitMQ) -> bool:
    """Whether the channel's exchange has a queue behind it."""
    returned: list[object] = []
    with Connection(rabbitmq.url, transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer(on_return=lambda *answer: returned.append(answer))
        producer.publish({}, exchange="stock", mandatory=True)
    return not returned
