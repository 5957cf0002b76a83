"""The npm package socket.io-client with a token, one emit and four listeners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobcast.events import PROTOCOL_VERSION
from jobcast.transports import open_publisher
from tests import jobs
from tests.conftest import Valkey
from tests.e2e.stock import Event, stock_client
from tests.support import Server, Worker, new_id, wait_for


def messages(events: list[Event]) -> list[str]:
    return [data["message"] for name, data in events if name == "job_log"]


@pytest.mark.usefixtures("package")
def test_stock_client_follows_from_the_start_the_middle_and_the_end(
    server: Server,
    worker: Worker,
    send: Callable[..., str],
    token: Callable[..., str],
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    job_id = send(worker, jobs.count, 10, str(gate))
    url = server.url
    with stock_client(url, token(), job_id, tmp_path) as early:
        wait_for(lambda: len(messages(early.events)) == 6, "job half-way")
        with stock_client(url, token(), job_id, tmp_path) as late:
            # Missed lines and the latest progress arrive before any new event.
            wait_for(lambda: len(late.events) == 7, "state of the job")
            assert messages(late.events) == [f"step {n}" for n in range(6)]
            [progress] = [data for name, data in late.events if name == "job_progress"]
            assert progress["percentage"] == 50
            gate.touch()
            followed = [early.finish(), late.finish()]
    with stock_client(url, token(), job_id, tmp_path) as last:
        followed.append(last.finish())
    for events in followed:
        assert messages(events) == [f"step {n}" for n in range(10)]
        seqs = [data["seq"] for _, data in events]
        assert seqs == sorted(set(seqs))
        name, end = events[-1]
        assert name == "job_complete"
        assert end["result"] == {"steps": 10}
        assert {data["job_id"] for _, data in events} == {job_id}
    assert sum(name == "job_progress" for name, _ in followed[-1]) == 1


@pytest.mark.usefixtures("package")
def test_stock_client_is_refused_with_a_code(server: Server, tmp_path: Path) -> None:
    with stock_client(server.url, "garbage", new_id(), tmp_path) as client:
        [(name, error)] = client.finish()
    assert name == "connect_error"
    assert error["data"]["code"] == "token_invalid"


@pytest.mark.usefixtures("package")
def test_hello_is_the_first_event_that_it_receives(
    server: Server,
    valkey: Valkey,
    token: Callable[..., str],
    job_id: str,
    tmp_path: Path,
) -> None:
    publisher = open_publisher(valkey.url)
    publisher.emit("job_complete", {"result": 1}, room=f"job_{job_id}")
    publisher.close()
    with stock_client(server.url, token(jobs=["*"]), job_id, tmp_path, "listen.mjs") as client:
        events = client.finish()
    assert [name for name, _ in events] == ["hello", "joined", "job_complete"]
    assert events[0][1]["protocol"] == PROTOCOL_VERSION
    assert {"join_job", "leave_job", "refresh_token"} <= set(events[0][1]["features"])
