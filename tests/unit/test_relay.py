"""The relay, with a source that is slow, loses messages, and comes back, as it likes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.realtime.relay import QUIET_CHECK, Relay
from jobcast.transports import Message, Outgoing, Retention, Snapshot
from jobcast.transports.record import Record
from tests.recorder import Recorder
from tests.support import eventually

JOB = "a"


class Unsteady:
    """A source whose answers take a while, and whose live messages may be late or lost."""

    def __init__(self, chance: random.Random, loss: float = 0.0) -> None:
        self.record = Record(None, 10_000)
        self.chance = chance
        self.loss = loss
        self.subscriptions: list[str] = []
        self.unreadable = False
        self.asked = 0  # for positions
        self._late: list[Message] = []

    @property
    def ready(self) -> bool:
        return True

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],
    ) -> None:
        self.on_message, self.on_resumed = on_message, on_resumed

    async def aclose(self) -> None: ...

    async def subscribe(self, job_id: str) -> None:
        await self._pause()
        self.subscriptions.append(job_id)

    async def unsubscribe(self, job_id: str) -> None:
        self.subscriptions.remove(job_id)

    async def owner(self, job_id: str) -> str | None:
        return None

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        self.asked += 1
        await self._pause()
        if self.unreadable:
            raise TransportUnavailable("not now")
        position = self.record.position if self.record.seq else Cursor(epoch="", seq=0)
        return [position for _ in job_ids]

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        await self._pause()
        if self.unreadable:
            raise TransportUnavailable("not now")
        snapshot = self.record.snapshot(after) if self.record.seq else Snapshot()
        await self._pause()
        return snapshot

    def publish(self, event: JobEvent) -> None:
        message = self.record.add(Outgoing.of(event), Retention())
        if message is not None and self.subscriptions and self.chance.random() >= self.loss:
            self._late.append(message)

    def deliver(self, count: int = 1_000_000) -> None:
        """Hand over the first of what is on its way."""
        now, self._late = self._late[:count], self._late[count:]
        for message in now:
            self.on_message(JOB, message)

    async def _pause(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)


def log(message: str) -> JobLog:
    return JobLog(job_id=JOB, level="info", message=message)


def progress(percentage: float) -> JobProgress:
    return JobProgress(job_id=JOB, percentage=percentage, message=None)


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


@settings(max_examples=150)
@given(st.integers(), st.sampled_from([0.0, 0.3]), st.booleans())
async def test_every_follower_gets_everything_once_and_in_order(
    seed: int, loss: float, resumes: bool
) -> None:
    chance = random.Random(seed)
    source = Unsteady(chance, loss)
    relay = Relay(source)
    relay.start()
    followers: list[Recorder] = []
    joins: list[asyncio.Task[object]] = []
    for step in range(60):
        match chance.randrange(6):
            case 0 if len(followers) < 6:
                follower = Recorder(str(step))
                followers.append(follower)
                joins.append(asyncio.create_task(relay.join(JOB, follower)))
            case 1:
                source.publish(progress(step))
            case 2:
                source.deliver(chance.randrange(3))
            case 3 if resumes and step % 7 == 0:
                joins.append(asyncio.create_task(_resume(source)))
            case _:
                source.publish(log(str(step)))
        await asyncio.sleep(0)
    await asyncio.gather(*joins)
    source.deliver()
    await settle()
    # Whatever was lost at the very end shows with the next event, or when the source is back.
    await source.on_resumed()
    await settle()
    expected = [m.packet for m in source.record.events]
    for follower in followers:
        assert follower.lines == [msgspec.json.decode(p[2:])[1]["message"] for p in expected]
        assert follower.seqs == sorted(set(follower.seqs))
        if source.record.progress is not None:
            assert source.record.progress.seq in follower.seqs
    for follower in followers:
        relay.leave(JOB, follower.sid)
    await settle()
    assert relay.followed == 0
    assert source.subscriptions == []
    await relay.aclose()


async def _resume(source: Unsteady) -> None:
    await source.on_resumed()


async def steady(*events: JobEvent, quiet_check: float = QUIET_CHECK) -> tuple[Relay, Unsteady]:
    source = Unsteady(random.Random(1))
    for event in events:
        source.publish(event)
    relay = Relay(source, quiet_check)
    relay.start()
    return relay, source


async def test_a_cursor_saves_what_was_seen() -> None:
    relay, _ = await steady(*(log(str(n)) for n in range(10)))
    one, two, three = Recorder("1"), Recorder("2"), Recorder("3")
    first = await relay.join(JOB, one)
    assert (first.seq, first.recovered) == (10, False)
    again = await relay.join(JOB, two, Cursor(epoch=first.epoch, seq=7))
    assert again.recovered
    assert two.lines == ["7", "8", "9"]
    stranger = await relay.join(JOB, three, Cursor(epoch="another", seq=7))
    assert not stranger.recovered
    assert len(three.lines) == 10
    await relay.aclose()


async def test_a_record_begun_anew_is_announced() -> None:
    relay, source = await steady(log("old"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.record = Record(None, 100)
    source.publish(JobStatus(job_id=JOB, status="started"))
    source.publish(log("new"))
    source.deliver()
    await settle()
    assert follower.names == ["joined", "job_log", "joined", "job_status", "job_log"]
    assert follower.events[2][1]["epoch"] == source.record.epoch
    assert follower.events[0][1]["epoch"] != source.record.epoch
    await relay.aclose()


async def test_a_gap_that_cannot_be_read_yet_is_filled_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobcast.realtime.relay.RETRY_DELAY", 0)
    relay, source = await steady(log("0"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    source.publish(log("1"))
    source.loss = 0
    source.unreadable = True
    source.publish(log("2"))
    source.deliver()
    await settle()
    assert follower.lines == ["0"]
    source.unreadable = False
    await settle()
    assert follower.lines == ["0", "1", "2"]
    await relay.aclose()


async def test_a_join_that_fails_leaves_nothing() -> None:
    relay, source = await steady(log("0"))
    source.unreadable = True
    with pytest.raises(TransportUnavailable):
        await relay.join(JOB, Recorder("1"))
    await settle()
    assert relay.followed == 0
    assert source.subscriptions == []
    await relay.aclose()


async def test_one_that_goes_while_it_joins_is_not_let_in() -> None:
    relay, _ = await steady(log("0"))
    follower = Recorder("1")
    task = asyncio.create_task(relay.join(JOB, follower))
    await asyncio.sleep(0)
    follower.closed = True
    await task
    await settle()
    assert follower.events == []
    assert relay.followed == 0
    await relay.aclose()


async def test_a_cancelled_join_leaves_the_others_alone() -> None:
    relay, _ = await steady(log("0"))
    impatient, patient = Recorder("1"), Recorder("2")
    task = asyncio.create_task(relay.join(JOB, impatient))
    other = asyncio.create_task(relay.join(JOB, patient))
    await asyncio.sleep(0)
    task.cancel()
    await other
    assert patient.lines == ["0"]
    assert impatient.events == []
    await relay.aclose()


async def test_what_a_quiet_room_has_missed_is_found() -> None:
    """The connection is up, and yet a message did not come: nothing tells but the store."""
    relay, source = await steady(log("0"), quiet_check=0.02)
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    for line in "123":
        source.publish(log(line))
        await eventually(lambda: len(follower.lines) == source.record.seq, f"line {line}")
    source.record = Record(None, 100)
    source.publish(log("another record"))
    await eventually(lambda: "another record" in follower.lines, "the new record")
    assert follower.lines == ["0", "1", "2", "3", "another record"]
    assert follower.names.count("joined") == 2
    await relay.aclose()


async def test_a_store_that_cannot_be_read_does_not_end_the_check_of_quiet_rooms() -> None:
    relay, source = await steady(log("0"), quiet_check=0.01)
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss, source.unreadable = 1, True
    source.publish(log("1"))
    asked = source.asked
    await eventually(lambda: source.asked > asked + 2, "further checks")
    assert follower.lines == ["0"]
    source.unreadable = False
    await eventually(lambda: follower.lines == ["0", "1"], "the line")
    await relay.aclose()
