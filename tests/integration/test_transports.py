"""The rules that every transport keeps, on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import socketio

from jobcast.errors import InvalidMessage
from jobcast.events import (
    Cursor,
    JobComplete,
    JobEvent,
    JobLog,
    JobProgress,
    JobStatus,
)
from jobcast.transports import (
    Message,
    Outgoing,
    Retention,
    Source,
    TransportPublisher,
    open_manager,
    open_publisher,
)
from tests.conftest import Valkey
from tests.support import eventually, new_id


@dataclass
class Ends:
    """Both ends of a transport."""

    publisher: TransportPublisher
    source: Source
    received: list[tuple[str, Message]]

    def say(self, *events: JobEvent, owner: str | None = None) -> None:
        self.publisher.publish([Outgoing.of(event, owner) for event in events])


@pytest.fixture(params=["memory", "redis"])
async def ends(request: pytest.FixtureRequest, valkey: Valkey) -> AsyncIterator[Ends]:
    url = valkey.url if request.param == "redis" else f"memory://{new_id()}"
    retention = Retention(ttl=60, size=100)
    publisher = open_publisher(url, retention)
    source = open_manager(url, retention).source
    received: list[tuple[str, Message]] = []

    async def resumed() -> None:
        raise AssertionError("nothing was interrupted")

    source.start(lambda job_id, message: received.append((job_id, message)), resumed)
    await eventually(lambda: source.ready, "source")
    yield Ends(publisher, source, received)
    await source.aclose()
    publisher.close()


def log(job_id: str, message: str = "hello") -> JobLog:
    return JobLog(job_id=job_id, level="info", message=message)


def progress(job_id: str, percentage: float) -> JobProgress:
    return JobProgress(job_id=job_id, percentage=percentage, message=None)


async def test_publishers_and_managers_are_python_socketios_own(ends: Ends) -> None:
    assert isinstance(ends.publisher, socketio.PubSubManager)
    assert ends.publisher.write_only


async def test_a_subscriber_gets_ready_packets_in_order(ends: Ends, job_id: str) -> None:
    await ends.source.subscribe(job_id)
    ends.say(JobStatus(job_id=job_id, status="started"), progress(job_id, 5), log(job_id))
    ends.say(JobComplete(job_id=job_id, result=[1, "two"]))
    await eventually(lambda: len(ends.received) == 4, "messages")
    assert {job for job, _ in ends.received} == {job_id}
    messages = [message for _, message in ends.received]
    assert [(m.seq, m.kind) for m in messages] == [(1, "s"), (2, "p"), (3, "l"), (4, "t")]
    assert len({m.epoch for m in messages}) == 1
    assert messages[3].packet.startswith('42["job_complete",{"job_id":')
    assert messages[3].packet.endswith('"result":[1,"two"],"seq":4}]')


async def test_what_is_not_subscribed_to_is_not_received(ends: Ends) -> None:
    mine, other = new_id(), new_id()
    await ends.source.subscribe(mine)
    await ends.source.subscribe(other)
    await ends.source.unsubscribe(other)
    ends.say(log(other), log(mine))
    await eventually(lambda: ends.received, "message")
    assert [job for job, _ in ends.received] == [mine]


async def test_a_snapshot_has_logs_statuses_the_latest_progress_and_the_end(
    ends: Ends, job_id: str
) -> None:
    ends.say(
        JobStatus(job_id=job_id, status="started"),
        progress(job_id, 1),
        log(job_id),
        progress(job_id, 2),
        JobComplete(job_id=job_id, result=None),
    )
    snapshot = await ends.source.snapshot(job_id)
    assert [(m.seq, m.kind) for m in snapshot.events] == [(1, "s"), (3, "l"), (4, "p"), (5, "t")]
    assert (snapshot.seq, snapshot.state, snapshot.recovered) == (5, "complete", False)


async def test_a_job_that_nothing_is_known_of_is_pending(ends: Ends, job_id: str) -> None:
    snapshot = await ends.source.snapshot(job_id)
    assert (snapshot.epoch, snapshot.seq, snapshot.state) == ("", 0, "pending")
    assert snapshot.events == ()
    assert await ends.source.owner(job_id) is None
    after = await ends.source.snapshot(job_id, Cursor(epoch="another", seq=7))
    assert (after.epoch, after.recovered) == ("", False)


@pytest.mark.parametrize(
    ("seq", "recovered", "seen"),
    [(0, True, [1, 3, 4]), (1, True, [3, 4]), (3, True, [4]), (4, True, []), (5, False, [1, 3, 4])],
)
async def test_a_cursor_brings_what_came_after_it(
    ends: Ends, job_id: str, seq: int, recovered: bool, seen: list[int]
) -> None:
    ends.say(log(job_id), progress(job_id, 1), log(job_id), progress(job_id, 2))
    epoch = (await ends.source.snapshot(job_id)).epoch
    snapshot = await ends.source.snapshot(job_id, Cursor(epoch=epoch, seq=seq))
    assert snapshot.recovered is recovered
    assert [m.seq for m in snapshot.events] == seen
    stranger = await ends.source.snapshot(job_id, Cursor(epoch="another", seq=3))
    assert stranger.recovered is False
    assert [m.seq for m in stranger.events] == [1, 3, 4]


async def test_history_is_bounded_and_says_when_it_is_not_enough(ends: Ends, job_id: str) -> None:
    ends.say(*(log(job_id, str(n)) for n in range(1000)))
    snapshot = await ends.source.snapshot(job_id)
    # Trimmed by whole nodes on Redis.
    assert 100 <= len(snapshot.events) <= 200
    assert snapshot.events[-1].seq == 1000
    trimmed = await ends.source.snapshot(job_id, Cursor(epoch=snapshot.epoch, seq=5))
    assert trimmed.recovered is False
    assert len(trimmed.events) == len(snapshot.events)
    kept = await ends.source.snapshot(job_id, Cursor(epoch=snapshot.epoch, seq=990))
    assert kept.recovered is True
    assert [m.seq for m in kept.events] == list(range(991, 1001))


async def test_nothing_follows_the_end_but_a_new_run(ends: Ends, job_id: str) -> None:
    await ends.source.subscribe(job_id)
    ends.say(JobStatus(job_id=job_id, status="started"), progress(job_id, 80))
    ends.say(JobComplete(job_id=job_id, result=1))
    ends.say(log(job_id, "late"), progress(job_id, 90), JobStatus(job_id=job_id, status="stalled"))
    snapshot = await ends.source.snapshot(job_id)
    assert (snapshot.seq, snapshot.state) == (3, "complete")
    ends.say(JobStatus(job_id=job_id, status="started", attempt=2), log(job_id, "again"))
    again = await ends.source.snapshot(job_id)
    assert again.epoch == snapshot.epoch
    assert again.state == "started"
    # What the first run showed is not the state of the second.
    assert [(m.seq, m.kind) for m in again.events] == [(4, "s"), (5, "l")]
    await eventually(lambda: len(ends.received) == 5, "messages")


async def test_the_first_event_sets_the_owner_for_good(ends: Ends, job_id: str) -> None:
    ends.say(log(job_id), owner="alice")
    ends.say(log(job_id), owner="mallory")
    assert await ends.source.owner(job_id) == "alice"


async def test_any_process_may_emit_to_a_jobs_room(ends: Ends, job_id: str) -> None:
    await ends.source.subscribe(job_id)
    room = f"job_{job_id}"
    ends.publisher.emit("job_progress", {"percentage": 40, "message": "by hand"}, room=room)
    await eventually(lambda: ends.received, "message")
    [(_, message)] = ends.received
    assert '"percentage":40' in message.packet
    assert f'"job_id":"{job_id}"' in message.packet
    assert '"timestamp":"2' in message.packet
    for wrong in ({"percentage": 400, "message": None}, {"message": "x"}, "text"):
        with pytest.raises(InvalidMessage, match="job_progress"):
            ends.publisher.emit("job_progress", wrong, room=room)
    ends.publisher.emit("chat", {"free": "form"}, room="another")


async def test_a_source_may_be_closed_twice(ends: Ends) -> None:
    await ends.source.aclose()
    await ends.source.aclose()


async def test_many_jobs_at_once(ends: Ends) -> None:
    ids = [new_id() for _ in range(300)]
    await asyncio.gather(*(ends.source.subscribe(job_id) for job_id in ids))
    ends.say(*(log(job_id) for job_id in ids))
    await eventually(lambda: len(ends.received) == 300, "messages")
    assert {job for job, _ in ends.received} == set(ids)


async def test_strangers_on_a_channel_do_no_harm(
    valkey: Valkey, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Message] = []

    async def resumed() -> None:
        raise AssertionError("nothing was interrupted")

    source = open_manager(valkey.url).source
    source.start(lambda _, message: received.append(message), resumed)
    await source.subscribe(job_id)
    for garbage in (b"hello", b"a b c", b"\xff\xfe 1 p x", b"epoch seq p {}"):
        valkey.command("PUBLISH", f"jobcast:{{{job_id}}}:live", garbage)
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(job_id))])
    await eventually(lambda: received, "message")
    assert [message.seq for message in received] == [1]
    assert caplog.text.count("something else than jobcast") == 4
    await source.aclose()
    publisher.close()


async def test_a_failing_receiver_does_not_make_the_source_deaf(
    valkey: Valkey, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Message] = []
    resumes: list[None] = []

    def receive(_: str, message: Message) -> None:
        received.append(message)
        if len(received) == 1:
            raise RuntimeError("a bug")

    async def resumed() -> None:
        resumes.append(None)

    source = open_manager(valkey.url).source
    source.start(receive, resumed)
    await source.subscribe(job_id)
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(job_id))])
    await eventually(lambda: resumes, "source that is back")
    publisher.publish([Outgoing.of(log(job_id))])
    await eventually(lambda: len(received) == 2, "message")
    assert "receiving from Redis failed" in caplog.text
    await source.aclose()
    publisher.close()


async def test_redis_keeps_a_jobs_keys_in_one_slot_for_a_bounded_time(
    valkey: Valkey, job_id: str
) -> None:
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=100))
    publisher.emit("job_log", {"level": "info", "message": "x"}, room=f"job_{job_id}")
    keys: list[Any] = valkey.command("KEYS", f"*{job_id}*")
    assert {key.decode() for key in keys} == {
        f"jobcast:{{{job_id}}}:state", f"jobcast:{{{job_id}}}:events",
    }  # fmt: skip
    # A job that has not ended may be silent for long.
    assert all(valkey.command("TTL", key) > 80_000 for key in keys)
    publisher.emit("job_complete", {"result": 1}, room=f"job_{job_id}")
    assert all(0 < valkey.command("TTL", key) <= 60 for key in keys)
    publisher.close()


async def test_redis_that_forgot_the_script_is_taught_it_again(valkey: Valkey, job_id: str) -> None:
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(job_id))])
    valkey.command("SCRIPT", "FLUSH")
    publisher.publish([Outgoing.of(log(job_id)), Outgoing.of(log(job_id))])
    source = open_manager(valkey.url).source
    assert (await source.snapshot(job_id)).seq == 3
    await source.aclose()
    publisher.close()


async def test_a_job_whose_key_is_something_else_holds_up_no_other(
    valkey: Valkey, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = new_id()
    valkey.command("SET", f"jobcast:{{{broken}}}:state", "not a hash")
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(broken)), Outgoing.of(log(job_id))])
    assert f"events of job {broken} were refused (1)" in caplog.text
    source = open_manager(valkey.url).source
    assert (await source.snapshot(job_id)).seq == 1
    await source.aclose()
    publisher.close()
