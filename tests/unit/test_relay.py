"""The relay, with a source that is slow, loses messages, and comes back, as it likes."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JobComplete, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.realtime.recent import Recent
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
        self.reads = 0  # of the history
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
        self.reads += 1
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


def foreign(seq: int) -> Message:
    """An event of a record that the store does not have, as another deployment publishes it."""
    head = Outgoing.of(log("of another deployment")).head
    return Message("foreign", seq, "l", f"{head}{seq}}}]")


async def test_events_of_another_deployment_cost_one_read(caplog: pytest.LogCaptureFixture) -> None:
    relay, source = await steady(log("0"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    reads = source.reads
    for n in range(1, 200):
        source.on_message(JOB, foreign(n))
        source.publish(log(str(n)))
        source.deliver()
        await settle()
        # What is the job's own is not held up meanwhile.
        assert follower.lines[-1] == str(n)
    assert source.reads - reads <= 2
    assert not relay._rooms[JOB].behind
    assert len(relay._rooms[JOB]._recent) == 0
    assert follower.names.count("joined") == 1
    assert caplog.text.count("JOBCAST_PREFIX") == 1
    await relay.aclose()


async def test_events_of_a_job_without_a_record_do_not_make_the_relay_read_on() -> None:
    relay, source = await steady()
    follower = Recorder("1")
    await relay.join(JOB, follower)
    for n in range(1, 50):
        source.on_message(JOB, foreign(n))
        await settle()
    assert source.reads <= 3
    source.publish(log("its own"))
    source.deliver()
    await settle()
    assert follower.lines == ["its own"]
    await relay.aclose()


async def restored(relay: Relay, source: Unsteady, follower: Recorder) -> None:
    """Let the store go back to an older copy of itself, and go on from there."""
    await relay.join(JOB, follower)
    source.publish(log("1"))
    copied = copy.deepcopy(source.record)
    for line in ("2", "3"):
        source.publish(log(line))
    source.deliver()
    await settle()
    assert follower.lines == ["0", "1", "2", "3"]
    source.record = copied


async def test_a_record_that_went_back_is_shown_again_from_its_beginning() -> None:
    relay, source = await steady(log("0"))
    follower = Recorder("1")
    await restored(relay, source, follower)
    await source.on_resumed()
    await settle()
    source.publish(log("another 2"))
    source.publish(JobComplete(job_id=JOB, result=None))
    source.deliver()
    await settle()
    assert follower.lines[4:] == ["0", "1", "another 2"]
    assert follower.names[-1] == "job_complete"
    joined = [payload["epoch"] for name, payload in follower.events if name == "joined"]
    # Clients forget a record when they see another epoch.
    assert joined == [source.record.epoch, "", source.record.epoch]
    await relay.aclose()


async def test_a_quiet_room_finds_that_its_record_went_back() -> None:
    relay, source = await steady(log("0"), quiet_check=0.02)
    follower = Recorder("1")
    await restored(relay, source, follower)
    source.loss = 1
    source.publish(log("another 2"))
    await eventually(lambda: follower.lines[4:] == ["0", "1", "another 2"], "the new record")
    await relay.aclose()


async def test_late_messages_do_not_look_like_a_record_that_went_back() -> None:
    relay, source = await steady(log("0"), quiet_check=0.01)
    follower = Recorder("1")
    await relay.join(JOB, follower)
    for n in range(1, 50):
        source.publish(log(str(n)))
        source.deliver()
        await asyncio.sleep(0.002)
    assert follower.names.count("joined") == 1
    assert follower.lines == [str(n) for n in range(50)]
    await relay.aclose()


async def test_a_cursor_beyond_the_record_gets_it_from_its_beginning() -> None:
    relay, source = await steady(log("0"))
    first, again = Recorder("1"), Recorder("2")
    await restored(relay, source, first)
    answer = await relay.join(JOB, again, Cursor(epoch=source.record.epoch, seq=4))
    assert not answer.recovered
    assert again.names == ["joined", "joined", "job_log", "job_log"]
    assert [payload["epoch"] for _, payload in again.events[:2]] == ["", source.record.epoch]
    # Those who were there are brought to the same place.
    assert first.lines[4:] == ["0", "1"]
    await relay.aclose()


async def test_a_join_with_an_old_cursor_finds_that_the_record_went_back() -> None:
    relay, source = await steady(log("0"))
    first, again = Recorder("1"), Recorder("2")
    await restored(relay, source, first)
    answer = await relay.join(JOB, again, Cursor(epoch=source.record.epoch, seq=1))
    assert not answer.recovered
    assert first.lines[4:] == again.lines == ["0", "1"]
    await relay.aclose()


async def test_what_was_received_is_delivered_although_the_store_evicted_it() -> None:
    relay, source = await steady(log("0"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    source.publish(log("lost for good"))
    source.loss = 0
    source.publish(log("received"))
    source.publish(JobComplete(job_id=JOB, result=None))
    source.record.events.clear()
    source.deliver()
    await settle()
    assert follower.names == ["joined", "job_log", "job_log", "job_complete"]
    assert follower.lines == ["0", "received"]
    await relay.aclose()


@pytest.mark.parametrize("begun_anew", [True, False])
async def test_the_end_is_delivered_although_its_record_is_gone(begun_anew: bool) -> None:
    relay, source = await steady(log("0"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    source.publish(log("lost for good"))
    source.loss = 0
    source.publish(JobComplete(job_id=JOB, result=None))
    source.record = Record(None, 100)
    if begun_anew:
        source.publish(log("another record"))
    source.deliver()
    await settle()
    expected = ["joined", "job_log", "job_complete"]
    assert follower.names == expected + ["joined", "job_log"] * begun_anew
    await relay.aclose()


async def test_what_waits_for_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcast.realtime.relay.RETRY_DELAY", 0)
    relay, source = await steady(log("0"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    room = relay._rooms[JOB]
    room._recent = Recent(max_messages=10)
    source.loss = 1
    source.publish(log("1"))
    source.loss, source.unreadable = 0, True
    for n in range(2, 100):
        source.publish(log(str(n)))
        source.deliver()
        await asyncio.sleep(0)
        assert len(room._recent) <= 10
    source.unreadable = False
    await settle()
    assert follower.lines == [str(n) for n in range(100)]
    await relay.aclose()


async def test_who_joins_a_job_that_is_faster_than_its_history_is_asked_to_come_again() -> None:
    relay, source = await steady(log("0"))
    await relay.join(JOB, Recorder("1"))
    room = relay._rooms[JOB]
    room._recent = Recent(max_messages=2)
    late, gate, read = Recorder("2"), asyncio.Event(), source.snapshot

    async def slow(job_id: str, after: Cursor | None = None) -> Snapshot:
        snapshot = await read(job_id, after)
        await gate.wait()
        return snapshot

    source.snapshot = slow  # type: ignore[method-assign]
    join = asyncio.create_task(relay.join(JOB, late))
    await settle()
    for n in range(10):
        source.publish(log(str(n)))
    source.deliver()
    gate.set()
    with pytest.raises(TransportUnavailable, match="faster than its history"):
        await join
    assert late.events == []
    await relay.join(JOB, late)
    assert late.seqs == list(range(1, 12))
    await relay.aclose()


def test_recent_messages_are_bounded_by_number_and_size() -> None:
    recent = Recent(max_messages=3, max_characters=200)
    for n in range(1, 6):
        recent.add(Message("a", n, "l", "x"))
    assert (len(recent), recent.arrived) == (3, 5)
    recent.add(Message("a", 6, "l", "x" * 150))
    recent.add(Message("a", 7, "l", "x" * 150))
    assert [message.seq for message in recent.within("a", 0, 100)] == [7]
    recent.add(Message("b", 8, "l", "x"))
    assert [message.seq for message in recent.take_before(7)] == [7]
    assert [message.seq for message in recent.take()] == [8]
