"""The relay with a source that is slow, loses messages and recovers at random times."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcast.errors import TransportUnavailable
from jobcast.events import (
    NO_INFO,
    Cursor,
    JobComplete,
    JobEvent,
    JobInfo,
    JobInfoUpdate,
    JobLog,
    JobProgress,
    JobStatus,
    Refusal,
    RunStatus,
)
from jobcast.realtime.authorization import Grant
from jobcast.realtime.recent import Recent
from jobcast.realtime.relay import QUIET_CHECK, Relay
from jobcast.realtime.rights import NOT_FOUND, NotAllowed
from jobcast.targets import JobTarget
from jobcast.transports import Message, Outgoing, Retention, Snapshot
from jobcast.transports.record import Record
from tests.support import eventually
from tests.support.recorder import Recorder

JOB = "a"
RETENTION = Retention(size=10_000)


class UnreliableSource:
    """A source with slow answers, whose live messages may be late or lost."""

    def __init__(self, chance: random.Random, loss: float = 0.0) -> None:
        self.record = Record(None, RETENTION)
        self.chance = chance
        self.loss = loss
        self.subscriptions: list[str] = []
        self.unreadable = False
        self.position_reads = 0
        self.reads = 0  # reads of the history
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

    async def info(self, job_id: str) -> JobInfo:
        return NO_INFO

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        self.position_reads += 1
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
        for message in self.record.add(Outgoing.of(event)):
            if self.subscriptions and self.chance.random() >= self.loss:
                self._late.append(message)

    def deliver(self, count: int = 1_000_000) -> None:
        """Deliver the first ``count`` of the messages in transit."""
        now, self._late = self._late[:count], self._late[count:]
        for message in now:
            self.on_message(JOB, message)

    async def _pause(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)


def log(message: str) -> JobLog:
    return JobLog(job_id=JOB, level="info", message=message)


def progress(percentage: float) -> JobProgress:
    return JobProgress(job_id=JOB, percentage=percentage)


def info(**changes: Any) -> JobInfoUpdate:
    return JobInfoUpdate(job_id=JOB, **changes)


def described_to(follower: Recorder) -> JobInfo:
    """Return the title and the tags that a follower knows."""
    known = NO_INFO
    for name, payload in follower.events:
        values = {field: payload[field] for field in ("title", "tags") if field in payload}
        known = (NO_INFO if name == "joined" else known).updated(JobInfo(**values))
    return known


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


@settings(max_examples=150)
@given(st.integers(), st.sampled_from([0.0, 0.3]), st.booleans())
async def test_every_follower_gets_everything_once_and_in_order(
    seed: int, loss: float, resumes: bool
) -> None:
    chance = random.Random(seed)
    source = UnreliableSource(chance, loss)
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
            case 4 if step % 3 == 0:
                source.publish(info(title=str(step), tags=(f"tag {step % 4}",)))
            case _:
                source.publish(log(str(step)))
        await asyncio.sleep(0)
    await asyncio.gather(*joins)
    source.deliver()
    await settle()
    # The next event, or the source's recovery, reveals messages that were lost at the end.
    await source.on_resumed()
    await settle()
    expected = [m.packet for m in source.record.history.events]
    for follower in followers:
        assert follower.lines == [msgspec.json.decode(p[2:])[1]["message"] for p in expected]
        assert follower.seqs == sorted(set(follower.seqs))
        assert described_to(follower) == source.record.info
        if source.record.history.progress is not None:
            assert source.record.history.progress.seq in follower.seqs
    for follower in followers:
        relay.leave(JOB, follower.sid)
    await settle()
    assert relay.followed == 0
    assert source.subscriptions == []
    await relay.aclose()


async def _resume(source: UnreliableSource) -> None:
    await source.on_resumed()


class OwnersOnly:
    """Rights of connections whose ids are the owners whose jobs they may follow."""

    def __init__(self) -> None:
        self.checked: list[tuple[str, str | None]] = []
        self.ended_sids: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.unavailable = False

    async def refused(self, target: JobTarget, sids: Sequence[str]) -> Mapping[str, Refusal]:
        self.checked += [(sid, target.owner) for sid in sids]
        await self.answers.wait()
        if self.unavailable:
            raise TransportUnavailable("not now")
        return {sid: NOT_FOUND for sid in sids if sid.split("-")[0] not in (target.owner, "admin")}

    def ended(self, job_id: str, sid: str, refusal: Refusal) -> None:
        assert refusal is NOT_FOUND
        self.ended_sids.append(sid)


def granted(owner: str | None, job_id: str = JOB) -> Grant:
    """Return the right to follow a job of this owner."""
    return Grant(JobTarget(id=job_id, owner=owner))


async def start_relay(
    *events: JobEvent,
    quiet_check: float = QUIET_CHECK,
    owner: str | None = None,
    rights: OwnersOnly | None = None,
    retention: Retention = RETENTION,
) -> tuple[Relay, UnreliableSource]:
    source = UnreliableSource(random.Random(1))
    source.record = Record(owner, retention)
    for event in events:
        source.publish(event)
    relay = Relay(source, quiet_check, rights=rights)
    relay.start()
    return relay, source


async def test_join_with_cursor_skips_events_already_received() -> None:
    relay, _ = await start_relay(*(log(str(n)) for n in range(10)))
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


async def test_new_record_is_announced_with_joined() -> None:
    relay, source = await start_relay(log("old"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.record = Record(None, RETENTION)
    source.publish(JobStatus(job_id=JOB, status="started"))
    source.publish(log("new"))
    source.deliver()
    await settle()
    assert follower.names == ["joined", "job_log", "joined", "job_status", "job_log"]
    assert follower.events[2][1]["epoch"] == source.record.epoch
    assert follower.events[0][1]["epoch"] != source.record.epoch
    await relay.aclose()


async def test_gap_is_filled_after_the_store_is_readable_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobcast.realtime.relay.RETRY_DELAY", 0)
    relay, source = await start_relay(log("0"))
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


FEW = Retention(size=4, statuses=3)


def status(value: RunStatus, attempt: int = 1) -> JobStatus:
    return JobStatus(job_id=JOB, status=value, attempt=attempt)


async def test_missed_title_takes_the_place_of_a_missed_event() -> None:
    relay, source = await start_relay(status("started"), info(title="first", tags=("a",)))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    source.publish(info(title="second"))
    source.publish(info(tags=("b",)))
    source.publish(log("lost"))
    source.loss = 0
    source.publish(log("received"))
    source.deliver()
    await eventually(lambda: len(follower.lines) == 2, "lines")
    assert follower.names == ["joined", "job_status", "job_info", "job_log", "job_log"]
    assert follower.seqs == [1, 4, 5, 6]
    assert described_to(follower) == JobInfo(title="second", tags=("a", "b"))
    await relay.aclose()


async def test_late_follower_of_a_trimmed_log_gets_the_statuses_and_a_gap() -> None:
    relay, _ = await start_relay(
        status("queued"), status("started"), *(log(str(n)) for n in range(10)), retention=FEW
    )
    follower = Recorder("1")
    await relay.join(JOB, follower)
    assert follower.names == ["joined", *["job_status"] * 2, "job_gap", *["job_log"] * 4]
    assert follower.lines == ["6", "7", "8", "9"]
    assert follower.gaps == [(0, 9)]
    assert follower.events[0][1]["complete_from"] == 9
    await relay.aclose()


async def test_join_without_trimmed_history_has_no_gap() -> None:
    relay, source = await start_relay(progress(1), progress(2), log("0"), progress(3))
    follower, again = Recorder("1"), Recorder("2")
    await relay.join(JOB, follower)
    await relay.join(JOB, again, Cursor(epoch=source.record.epoch, seq=1))
    assert follower.names == ["joined", "job_log", "job_progress"]
    assert again.names == follower.names
    assert "complete_from" not in follower.events[0][1]
    await relay.aclose()


@pytest.mark.parametrize(
    ("after", "recovered", "gaps", "seqs"),
    [
        (1, False, [(1, 9)], [1, 2, 9, 10, 11, 12]),
        (7, False, [(7, 9)], [1, 2, 9, 10, 11, 12]),
        (8, True, [], [9, 10, 11, 12]),
        (12, True, [], []),
    ],
)
async def test_gap_begins_at_the_cursor(
    after: int, recovered: bool, gaps: list[tuple[int, int]], seqs: list[int]
) -> None:
    relay, source = await start_relay(
        status("queued"), status("started"), *(log(str(n)) for n in range(10)), retention=FEW
    )
    follower = Recorder("1")
    answer = await relay.join(JOB, follower, Cursor(epoch=source.record.epoch, seq=after))
    assert answer.recovered is recovered
    assert (follower.gaps, follower.seqs) == (gaps, seqs)
    await relay.aclose()


async def test_follower_that_missed_trimmed_lines_gets_a_gap_in_place() -> None:
    relay, source = await start_relay(log("0"), retention=FEW)
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    for n in range(1, 5):
        source.publish(log(str(n)))
    source.publish(status("retrying", 2))
    for n in range(5, 10):
        source.publish(log(str(n)))
    source.loss = 0
    source.publish(JobComplete(job_id=JOB, result=None))
    source.deliver()
    await settle()
    assert follower.lines == ["0", "6", "7", "8", "9"]
    assert follower.gaps == [(1, 8)]
    assert follower.names[2:5] == ["job_status", "job_gap", "job_log"]
    assert follower.names[-1] == "job_complete"
    await relay.aclose()


async def test_lines_that_were_received_before_they_were_trimmed_are_no_gap() -> None:
    relay, source = await start_relay(log("0"), retention=FEW)
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    source.publish(status("started"))
    source.loss = 0
    for n in range(1, 10):
        source.publish(log(str(n)))
    source.deliver()
    await settle()
    assert follower.lines == [str(n) for n in range(10)]
    assert follower.seqs == [*range(1, 12)]
    assert follower.gaps == []
    await relay.aclose()


async def test_new_record_begins_with_its_own_gap() -> None:
    relay, source = await start_relay(log("old"), log("old"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.record = Record(None, FEW)
    for n in range(10):
        source.publish(log(str(n)))
    source.deliver()
    await settle()
    assert follower.names[3:5] == ["joined", "job_gap"]
    assert follower.lines[2:] == ["6", "7", "8", "9"]
    assert follower.gaps == [(0, 7)]
    await relay.aclose()


@settings(max_examples=150)
@given(st.integers(), st.sampled_from([0.0, 0.3, 0.8]))
async def test_every_follower_gets_every_event_or_the_gap_that_has_it(
    seed: int, loss: float
) -> None:
    chance = random.Random(seed)
    source = UnreliableSource(chance, loss)
    source.record = Record(None, FEW)
    relay = Relay(source)
    relay.start()
    followers: dict[Recorder, Cursor] = {}
    joins: list[asyncio.Task[object]] = []
    for step in range(60):
        match chance.randrange(8):
            case 0 if len(followers) < 6:
                follower = Recorder(str(step))
                cursor = Cursor(epoch=source.record.epoch, seq=chance.randrange(40))
                followers[follower] = cursor
                joins.append(asyncio.create_task(relay.join(JOB, follower, cursor)))
            case 1:
                source.publish(status("retrying", step + 1))
            case 2 | 3:
                source.deliver(chance.randrange(3))
            case _:
                source.publish(log(str(step)))
        await asyncio.sleep(0)
    await asyncio.gather(*joins)
    source.deliver()
    await settle()
    await source.on_resumed()
    await settle()
    for follower, cursor in followers.items():
        is_known = follower.events[0][1]["epoch"] == cursor.epoch
        assert_complete(follower, cursor.seq if is_known else 0, source.record.seq)
    await relay.aclose()


def assert_complete(follower: Recorder, after: int, seq: int) -> None:
    """Check that a follower has every event, or a gap in place that is not empty."""
    got: set[int] = set()
    missing: set[int] = set()
    latest = 0
    for name, payload in follower.events:
        if name == "job_gap":
            assert latest < payload["before"]
            missing |= {*range(payload["after"] + 1, payload["before"])}
            latest = payload["before"] - 1
        elif name != "joined":
            assert payload["seq"] > latest
            latest = payload["seq"]
            got.add(latest)
    assert not follower.gaps or missing - got
    assert got | missing >= {*range(after + 1, seq + 1)}


async def test_failed_join_leaves_no_room_or_subscription() -> None:
    relay, source = await start_relay(log("0"))
    source.unreadable = True
    with pytest.raises(TransportUnavailable):
        await relay.join(JOB, Recorder("1"))
    await settle()
    assert relay.followed == 0
    assert source.subscriptions == []
    await relay.aclose()


async def test_follower_that_closes_during_join_is_not_added() -> None:
    relay, _ = await start_relay(log("0"))
    follower = Recorder("1")
    task = asyncio.create_task(relay.join(JOB, follower))
    await asyncio.sleep(0)
    follower.closed = True
    await task
    await settle()
    assert follower.events == []
    assert relay.followed == 0
    await relay.aclose()


async def test_cancelled_join_does_not_affect_other_joins() -> None:
    relay, _ = await start_relay(log("0"))
    impatient, patient = Recorder("1"), Recorder("2")
    task = asyncio.create_task(relay.join(JOB, impatient))
    other = asyncio.create_task(relay.join(JOB, patient))
    await asyncio.sleep(0)
    task.cancel()
    await other
    assert patient.lines == ["0"]
    assert impatient.events == []
    await relay.aclose()


async def test_quiet_room_detects_missed_events() -> None:
    """The transport is connected, but a message was lost: only the store reveals it."""
    relay, source = await start_relay(log("0"), quiet_check=0.02)
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    for line in "123":
        source.publish(log(line))
        await eventually(lambda: len(follower.lines) == source.record.seq, f"line {line}")
    source.record = Record(None, RETENTION)
    source.publish(log("another record"))
    await eventually(lambda: "another record" in follower.lines, "the new record")
    assert follower.lines == ["0", "1", "2", "3", "another record"]
    assert follower.names.count("joined") == 2
    await relay.aclose()


async def test_check_of_quiet_rooms_survives_an_unreadable_store() -> None:
    relay, source = await start_relay(log("0"), quiet_check=0.01)
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss, source.unreadable = 1, True
    source.publish(log("1"))
    before = source.position_reads
    await eventually(lambda: source.position_reads > before + 2, "further checks")
    assert follower.lines == ["0"]
    source.unreadable = False
    await eventually(lambda: follower.lines == ["0", "1"], "the line")
    await relay.aclose()


async def start_followed_relay(
    *sids: str, rights: OwnersOnly, quiet_check: float = QUIET_CHECK
) -> tuple[Relay, UnreliableSource, list[Recorder]]:
    """Return a relay with followers of a record that alice owns."""
    relay, source = await start_relay(
        log("alice's"), owner="alice", rights=rights, quiet_check=quiet_check
    )
    followers = [Recorder(sid) for sid in sids]
    for follower in followers:
        await relay.join(JOB, follower, None, granted("alice"))
    assert rights.checked == []
    return relay, source, followers


def replace_record(source: UnreliableSource, owner: str | None, *lines: str) -> None:
    source.record = Record(owner, RETENTION)
    for line in lines:
        source.publish(log(line))


async def test_followers_without_right_leave_before_first_event_of_new_record() -> None:
    rights = OwnersOnly()
    relay, source, [alice, admin] = await start_followed_relay("alice", "admin", rights=rights)
    rights.answers.clear()
    replace_record(source, "bob", "bob's 1", "bob's 2")
    source.deliver()
    await eventually(lambda: rights.checked, "rights check")
    source.publish(log("bob's 3"))
    source.deliver()
    await settle()
    # No event is sent during the check of rights.
    assert alice.lines == admin.lines == ["alice's"]
    rights.answers.set()
    await eventually(lambda: len(admin.lines) == 4, "lines of the new record")
    assert admin.lines == ["alice's", "bob's 1", "bob's 2", "bob's 3"]
    assert admin.names.count("joined") == 2
    assert alice.lines == ["alice's"]
    assert rights.ended_sids == ["alice"]
    assert set(rights.checked) == {("alice", "bob"), ("admin", "bob")}
    source.publish(log("bob's 4"))
    source.deliver()
    await settle()
    assert admin.lines[-1] == "bob's 4"
    assert alice.names == ["joined", "job_log"]
    await relay.aclose()


async def test_room_closes_after_its_last_follower_leaves() -> None:
    rights = OwnersOnly()
    relay, source, [alice] = await start_followed_relay("alice", rights=rights)
    replace_record(source, "bob", "bob's")
    source.deliver()
    await eventually(lambda: relay.followed == 0, "closed room")
    await settle()
    assert source.subscriptions == []
    assert alice.lines == ["alice's"]
    await relay.aclose()


async def test_rights_are_checked_when_a_record_gets_an_owner() -> None:
    """The first event arrived before the job was sent, so its record had no owner at first."""
    rights = OwnersOnly()
    relay, source = await start_relay(log("ownerless"), rights=rights)
    stranger = Recorder("mallory")
    await relay.join(JOB, stranger, None, granted(None))
    source.record.info = JobInfo(owner="alice")
    source.loss = 1
    source.publish(log("lost"))
    source.loss = 0
    source.publish(log("alice's"))
    source.deliver()
    await eventually(lambda: rights.ended_sids == ["mallory"], "end of the right")
    assert stranger.lines == ["ownerless"]
    await relay.aclose()


async def test_rights_of_newcomer_are_checked_if_the_owner_changes_during_join() -> None:
    rights = OwnersOnly()
    relay, source, [admin] = await start_followed_relay("admin", rights=rights)
    replace_record(source, "bob", "bob's")
    alice, bob = Recorder("alice"), Recorder("bob")
    refused, accepted = await asyncio.gather(
        relay.join(JOB, alice, None, granted("alice")),
        relay.join(JOB, bob, None, granted("alice")),
        return_exceptions=True,
    )
    assert isinstance(refused, NotAllowed)
    assert refused.refusal is NOT_FOUND
    assert not isinstance(accepted, BaseException)
    assert accepted.epoch == source.record.epoch
    assert (alice.events, bob.lines, admin.lines) == ([], ["bob's"], ["alice's", "bob's"])
    assert rights.ended_sids == []  # alice had not joined yet
    source.publish(log("bob's 2"))
    source.deliver()
    await settle()
    assert (alice.events, bob.lines) == ([], ["bob's", "bob's 2"])
    await relay.aclose()


async def test_join_waits_for_the_rights_check_of_followers() -> None:
    rights = OwnersOnly()
    relay, source, [alice] = await start_followed_relay("alice", rights=rights)
    rights.answers.clear()
    replace_record(source, "bob", "bob's")
    source.deliver()
    await eventually(lambda: rights.checked, "rights check")
    bob = Recorder("bob")
    joining = asyncio.create_task(relay.join(JOB, bob, None, granted("bob")))
    await settle()
    assert not joining.done()
    rights.answers.set()
    await joining
    assert (alice.lines, bob.lines) == (["alice's"], ["bob's"])
    assert rights.checked == [("alice", "bob")]
    await relay.aclose()


async def test_no_event_is_sent_until_rights_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcast.realtime.relay.RETRY_DELAY", 0)
    rights = OwnersOnly()
    relay, source, [alice, admin] = await start_followed_relay("alice", "admin", rights=rights)
    rights.unavailable = True
    replace_record(source, "bob", "bob's")
    source.deliver()
    await eventually(lambda: len(rights.checked) > 6, "further checks")
    with pytest.raises(TransportUnavailable):
        await relay.join(JOB, Recorder("bob"), None, granted("bob"))
    assert alice.lines == admin.lines == ["alice's"]
    rights.unavailable = False
    await eventually(lambda: admin.lines == ["alice's", "bob's"], "line of the new record")
    assert (alice.lines, rights.ended_sids) == (["alice's"], ["alice"])
    await relay.aclose()


async def test_rights_are_checked_again_if_the_record_changes_meanwhile() -> None:
    rights = OwnersOnly()
    relay, source, [alice, bob] = await start_followed_relay("alice", "bob", rights=rights)
    rights.answers.clear()
    replace_record(source, "bob", "bob's")
    source.deliver()
    await eventually(lambda: rights.checked, "rights check")
    replace_record(source, "carol", "carol's")
    source.deliver()
    rights.answers.set()
    await eventually(lambda: relay.followed == 0, "closed room")
    assert rights.ended_sids == ["alice", "bob"]
    assert alice.lines == bob.lines == ["alice's"]
    await relay.aclose()


async def test_slow_rights_check_does_not_delay_other_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rooms wait for the check after an interruption than may read concurrently."""
    monkeypatch.setattr("jobcast.realtime.relay.READING_AT_ONCE", 2)
    rights = OwnersOnly()
    sources = ManyJobs()
    relay = Relay(sources, rights=rights)
    relay.start()
    slow = [f"slow-{number}" for number in range(5)]
    followers = {job_id: Recorder("admin") for job_id in [*slow, "quick"]}
    for job_id, follower in followers.items():
        await relay.join(job_id, follower, None, granted("alice", job_id))
    rights.answers.clear()
    for job_id in slow:
        sources.records[job_id] = Record("bob", RETENTION)
        sources.add(job_id, "bob's")
    sources.add("quick", "missed")
    resuming = asyncio.ensure_future(sources.resume())
    await eventually(
        lambda: followers["quick"].lines == ["first", "missed"], "line that was missed"
    )
    assert all(followers[job_id].lines == ["first"] for job_id in slow)
    rights.answers.set()
    await resuming
    assert all(followers[job_id].lines == ["first", "bob's"] for job_id in slow)
    await relay.aclose()


class ManyJobs:
    """A source of several jobs without live messages."""

    ready = True

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def start(
        self,
        on_message: Callable[[str, Message], None],
        on_resumed: Callable[[], Awaitable[None]],
    ) -> None:
        self.resume = on_resumed

    def add(self, job_id: str, line: str) -> None:
        event = JobLog(job_id=job_id, level="info", message=line)
        self.records[job_id].add(Outgoing.of(event))

    async def aclose(self) -> None: ...

    async def subscribe(self, job_id: str) -> None:
        self.records[job_id] = Record("alice", RETENTION)
        self.add(job_id, "first")

    async def unsubscribe(self, job_id: str) -> None: ...

    async def info(self, job_id: str) -> JobInfo:
        return self.records[job_id].info

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        return [self.records[job_id].position for job_id in job_ids]

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        await asyncio.sleep(0)
        return self.records[job_id].snapshot(after)


def foreign(seq: int) -> Message:
    """Return an event of another deployment, whose record the store does not have."""
    head = Outgoing.of(log("of another deployment")).head
    return Message("foreign", seq, "l", f"{head}{seq}}}]")


async def test_events_of_another_deployment_cause_at_most_two_reads(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay, source = await start_relay(log("0"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    reads = source.reads
    for n in range(1, 200):
        source.on_message(JOB, foreign(n))
        source.publish(log(str(n)))
        source.deliver()
        await settle()
        # Foreign events do not delay the job's own events.
        assert follower.lines[-1] == str(n)
    assert source.reads - reads <= 2
    assert not relay._rooms[JOB].behind
    assert len(relay._rooms[JOB]._recent) == 0
    assert follower.names.count("joined") == 1
    assert caplog.text.count("JOBCAST_PREFIX") == 1
    await relay.aclose()


async def test_foreign_events_of_a_job_without_record_cause_few_reads() -> None:
    relay, source = await start_relay()
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


async def restore_older_copy(relay: Relay, source: UnreliableSource, follower: Recorder) -> None:
    """Restore the store from an older copy of the record."""
    await relay.join(JOB, follower)
    source.publish(log("1"))
    copied = copy.deepcopy(source.record)
    for line in ("2", "3"):
        source.publish(log(line))
    source.deliver()
    await settle()
    assert follower.lines == ["0", "1", "2", "3"]
    source.record = copied


async def test_record_that_went_back_is_sent_from_its_beginning() -> None:
    relay, source = await start_relay(log("0"))
    follower = Recorder("1")
    await restore_older_copy(relay, source, follower)
    await source.on_resumed()
    await settle()
    source.publish(log("another 2"))
    source.publish(JobComplete(job_id=JOB, result=None))
    source.deliver()
    await settle()
    assert follower.lines[4:] == ["0", "1", "another 2"]
    assert follower.names[-1] == "job_complete"
    joined = [payload["epoch"] for name, payload in follower.events if name == "joined"]
    # Clients discard a record when the epoch changes.
    assert joined == [source.record.epoch, "", source.record.epoch]
    await relay.aclose()


async def test_quiet_room_detects_that_its_record_went_back() -> None:
    relay, source = await start_relay(log("0"), quiet_check=0.02)
    follower = Recorder("1")
    await restore_older_copy(relay, source, follower)
    source.loss = 1
    source.publish(log("another 2"))
    await eventually(lambda: follower.lines[4:] == ["0", "1", "another 2"], "the new record")
    await relay.aclose()


async def test_late_messages_are_not_mistaken_for_a_record_that_went_back() -> None:
    relay, source = await start_relay(log("0"), quiet_check=0.01)
    follower = Recorder("1")
    await relay.join(JOB, follower)
    for n in range(1, 50):
        source.publish(log(str(n)))
        source.deliver()
        await asyncio.sleep(0.002)
    assert follower.names.count("joined") == 1
    assert follower.lines == [str(n) for n in range(50)]
    await relay.aclose()


async def test_join_with_cursor_beyond_the_record_gets_the_whole_record() -> None:
    relay, source = await start_relay(log("0"))
    first, again = Recorder("1"), Recorder("2")
    await restore_older_copy(relay, source, first)
    answer = await relay.join(JOB, again, Cursor(epoch=source.record.epoch, seq=4))
    assert not answer.recovered
    assert again.names == ["joined", "joined", "job_log", "job_log"]
    assert [payload["epoch"] for _, payload in again.events[:2]] == ["", source.record.epoch]
    # The earlier followers reach the same position.
    assert first.lines[4:] == ["0", "1"]
    await relay.aclose()


async def test_join_with_cursor_beyond_a_followed_record_gets_the_whole_record() -> None:
    """The followers joined after the record went back, so the room does not detect it."""
    relay, source = await start_relay(log("0"), log("1"))
    first, again = Recorder("1"), Recorder("2")
    await relay.join(JOB, first)
    answer = await relay.join(JOB, again, Cursor(epoch=source.record.epoch, seq=7))
    assert not answer.recovered
    assert again.names == ["joined", "joined", "job_log", "job_log"]
    assert again.lines == ["0", "1"]
    assert first.lines == ["0", "1"]
    await relay.aclose()


async def test_join_with_old_cursor_detects_that_the_record_went_back() -> None:
    relay, source = await start_relay(log("0"))
    first, again = Recorder("1"), Recorder("2")
    await restore_older_copy(relay, source, first)
    answer = await relay.join(JOB, again, Cursor(epoch=source.record.epoch, seq=1))
    assert not answer.recovered
    assert first.lines[4:] == again.lines == ["0", "1"]
    await relay.aclose()


async def test_received_events_are_delivered_after_the_store_evicted_them() -> None:
    relay, source = await start_relay(log("0"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    source.publish(log("lost for good"))
    source.loss = 0
    source.publish(log("received"))
    source.publish(JobComplete(job_id=JOB, result=None))
    source.record.history.clear()
    source.deliver()
    await settle()
    assert follower.names == ["joined", "job_log", "job_gap", "job_log", "job_complete"]
    assert follower.lines == ["0", "received"]
    assert follower.gaps == [(1, 3)]
    await relay.aclose()


@pytest.mark.parametrize("has_new_record", [True, False])
async def test_terminal_event_is_delivered_after_its_record_is_gone(has_new_record: bool) -> None:
    relay, source = await start_relay(log("0"))
    follower = Recorder("1")
    await relay.join(JOB, follower)
    source.loss = 1
    source.publish(log("lost for good"))
    source.loss = 0
    source.publish(JobComplete(job_id=JOB, result=None))
    source.record = Record(None, RETENTION)
    if has_new_record:
        source.publish(log("another record"))
    source.deliver()
    await settle()
    expected = ["joined", "job_log", "job_gap", "job_complete"]
    assert follower.names == expected + ["joined", "job_log"] * has_new_record
    await relay.aclose()


async def test_messages_waiting_for_the_history_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobcast.realtime.relay.RETRY_DELAY", 0)
    relay, source = await start_relay(log("0"))
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


async def test_join_fails_if_events_arrive_faster_than_the_history_is_read() -> None:
    relay, source = await start_relay(log("0"))
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
