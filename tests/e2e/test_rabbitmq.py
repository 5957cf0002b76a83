"""A worker and a Socket.IO process with RabbitMQ as the transport."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import socketio
from kombu.connection import Connection

from jobcast.transports.amqp.names import Names
from tests import jobs
from tests.conftest import Valkey
from tests.e2e.services import join_until_accepted, services
from tests.support import (
    SECRET,
    TIMEOUT,
    Follower,
    Process,
    Server,
    Transcript,
    answers,
    eventually,
    following,
    free_port,
    running,
    wait_for,
)
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_pipeline import is_routed, on_admin_channel

Send = Callable[..., str]
Token = Callable[..., str]


def lines(follower: Follower, job_id: str) -> list[str]:
    return [event["message"] for event in follower.transcript.of(job_id, "job_log")]


async def test_job_is_followed_live_and_by_a_late_join(
    rabbitmq: RabbitMQ, valkey: Valkey, send: Send, token: Token, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """RabbitMQ is also Celery's broker."""
    gate = tmp_path / "gate"
    with (
        services(tmp_path, rabbitmq.url, rabbitmq.url, valkey.url, monkeypatch) as (server, worker),
        Connection(rabbitmq.url) as broker,
    ):
        job_id = send(worker, jobs.count, 10, str(gate), connection=broker)
        async with (
            following(server.url, token()) as alice,
            following(server.url, token()) as late,
            following(server.url, token("mallory")) as mallory,
        ):
            # A join before the sender's first event arrives is refused with `job_not_found`.
            await join_until_accepted(alice, job_id)
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


def test_doctor_delivers_an_event(rabbitmq: RabbitMQ) -> None:
    doctor = [sys.executable, "-m", "jobcast.cli", "doctor"]
    env = {**os.environ, "JOBCAST_URL": rabbitmq.url, "JOBCAST_JWT_SECRET": SECRET}
    completed = subprocess.run(doctor, env=env, capture_output=True, text=True, timeout=TIMEOUT)
    assert "an event went through amqp://guest:***@127.0.0.1" in completed.stdout
    assert completed.stderr == ""


async def test_broker_crash_loses_no_events(
    rabbitmq: RabbitMQ, valkey: Valkey, send: Send, token: Token, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    gate = tmp_path / "gate"
    with services(tmp_path, rabbitmq.url, valkey.url, valkey.url, monkeypatch) as (server, worker):
        job_id = send(worker, jobs.tick, str(gate))
        async with following(server.url, token()) as alice:
            await join_until_accepted(alice, job_id)
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


async def test_server_that_is_stopped_while_the_events_exchange_is_deleted_misses_nothing(
    rabbitmq: RabbitMQ, valkey: Valkey, send: Send, token: Token, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The worker is silent until the other server has repaired the exchange."""
    gate, events = tmp_path / "gate", Names().events

    def is_repaired() -> bool:
        return is_routed(rabbitmq, events)

    with (
        services(tmp_path, rabbitmq.url, valkey.url, valkey.url, monkeypatch) as (server, worker),
        running(Server(tmp_path / "other.log", rabbitmq.url)) as other,
    ):
        other.ready()
        job_id = send(worker, jobs.count, 10, str(gate))
        async with following(server.url, token()) as alice, following(other.url, token()) as bob:
            for each in (alice, bob):
                await join_until_accepted(each, job_id)
                await each.transcript.wait_logged(job_id, 6)
            os.killpg(other.popen.pid, signal.SIGSTOP)
            await asyncio.to_thread(
                on_admin_channel, rabbitmq, lambda channel: channel.exchange_delete(events)
            )
            await asyncio.to_thread(wait_for, is_repaired, "repaired exchange")
            gate.touch()
            await alice.transcript.end(job_id)
            os.killpg(other.popen.pid, signal.SIGCONT)
            for each in (alice, bob):
                await each.transcript.end(job_id)
                assert lines(each, job_id) == [f"step {n}" for n in range(10)]


async def test_stock_server_on_the_channel_receives_events(
    rabbitmq: RabbitMQ, valkey: Valkey, send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is python-socketio with ``AsyncAioPikaManager``; its handler enters a room."""
    gate, port = tmp_path / "gate", free_port()
    stock = Process(
        [sys.executable, "-m", "uvicorn", "tests.stock_server:app", "--port", str(port)],
        tmp_path / "stock.log",
        {"STOCK_URL": rabbitmq.url, "STOCK_CHANNEL": "stock"},
    )
    events = f"{rabbitmq.url}?channel=stock"
    with (
        running(stock),
        services(tmp_path, events, valkey.url, valkey.url, monkeypatch) as (_, worker),
    ):
        stock.expect(lambda: "startup complete" in stock.log, "stock server")
        job_id = send(worker, jobs.count, 10, str(gate))
        transcript = Transcript()
        client = socketio.AsyncClient(handle_sigint=False, reconnection=False)
        client.on("*", lambda event, data: transcript.events.append((event, data)))
        await client.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
        try:
            assert await client.call("follow", job_id, timeout=TIMEOUT)
            await eventually(lambda: _is_subscribed(rabbitmq), "subscription of the stock server")
            gate.touch()
            end = await transcript.end(job_id)
            assert end["result"] == {"steps": 10}
            messages = [event["message"] for event in transcript.of(job_id, "job_log")]
            assert messages[-4:] == [f"step {n}" for n in range(6, 10)]
            assert transcript.of(job_id, "job_progress")
        finally:
            await client.disconnect()


def _is_subscribed(rabbitmq: RabbitMQ) -> bool:
    """Return whether a queue is bound to the channel's exchange."""
    returned: list[object] = []
    with Connection(rabbitmq.url, transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer(on_return=lambda *answer: returned.append(answer))
        producer.publish({}, exchange="stock", mandatory=True)
    return not returned
