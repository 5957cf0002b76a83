"""The relay, with a source that is slow, loses messages, and comes back, as it likes."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor, JobComplete, JobEvent, JobLog, JobProgress, JobStatus, Refusal
from jobcast.realtime.authorization import Grant
from jobcast.realtime.recent import Recent
from jobcast.realtime.relay import QUIET_CHECK, Relay
from jobcast.realtime.rights import NOT_FOUND, NotAllowed
from jobcast.transports import Message, Outgoing, Retention, Snapshot
from jobcast.transports.record import Record
from tests.support import eventually
from tests.support.recorder import Recorder

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


class OwnersOnly:
    """Rights of connections that are named like the owners whose jobs they may follow."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.ends: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.unavailable = False

    async def refused(
        self, job_id: str, sids: Sequence[str], owner: str | None
    ) -> Mapping[str, Refusal]:
        self.asked += [(sid, owner) for sid in sids]
        await self.answers.wait()
        if self.unavailable:
            raise TransportUnavailable("not now")
        return {sid: NOT_FOUND for sid in sids if sid.split("-")[0] not in (owner, "admin")}

    def ended(self, job_id: str, sid: str, refusal: Refusal) -> None:
        assert refusal is NOT_FOUND
        self.ends.append(sid)


async def steady(
    *events: JobEvent,
    quiet_check: float = QUIET_CHECK,
    owner: str | None = None,
    rights: OwnersOnly | None = None,
) -> tuple[Relay, Unsteady]:
    source = Unsteady(random.Random(1))
    source.record = Record(owner, 10_000)
    for event in events:
        source.publish(event)
    relay = Relay(source, quiet_check, rights=rights)
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


async def followed(
    *sids: str, rights: OwnersOnly, quiet_check: float = QUIET_CHECK
) -> tuple[Relay, Unsteady, list[Recorder]]:
    """A record of alice's, with followers."""
    relay, source = await steady(
        log("alice's"), owner="alice", rights=rights, quiet_check=quiet_check
    )
    followers = [Recorder(sid) for sid in sids]
    for follower in followers:
        await relay.join(JOB, follower, None, Grant("alice"))
    assert rights.asked == []
    return relay, source, followers


def replace_record(source: Unsteady, owner: str | None, *lines: str) -> None:
    source.record = Record(owner, 10_000)
    for line in lines:
        source.publish(log(line))


async def test_followers_who_may_not_follow_the_new_record_leave_before_its_first_event() -> None:
    rights = OwnersOnly()
    relay, source, [alice, admin] = await followed("alice", "admin", rights=rights)
    rights.answers.clear()
    replace_record(source, "bob", "bob's 1", "bob's 2")
    source.deliver()
    await eventually(lambda: rights.asked, "question")
    source.publish(log("bob's 3"))
    source.deliver()
    await settle()
    # While there is no answer nobody is sent anything.
    assert alice.lines == admin.lines == ["alice's"]
    rights.answers.set()
    await eventually(lambda: len(admin.lines) == 4, "lines of the new record")
    assert admin.lines == ["alice's", "bob's 1", "bob's 2", "bob's 3"]
    assert admin.names.count("joined") == 2
    assert alice.lines == ["alice's"]
    assert rights.ends == ["alice"]
    assert set(rights.asked) == {("alice", "bob"), ("admin", "bob")}
    source.publish(log("bob's 4"))
    source.deliver()
    await settle()
    assert admin.lines[-1] == "bob's 4"
    assert alice.names == ["joined", "job_log"]
    await relay.aclose()


async def test_a_room_whose_last_follower_leaves_is_closed() -> None:
    rights = OwnersOnly()
    relay, source, [alice] = await followed("alice", rights=rights)
    replace_record(source, "bob", "bob's")
    source.deliver()
    await eventually(lambda: relay.followed == 0, "end of the room")
    await settle()
    assert source.subscriptions == []
    assert alice.lines == ["alice's"]
    await relay.aclose()


async def test_an_owner_that_a_record_adopts_is_asked_about() -> None:
    """The first event came before the job was sent; the record is the same."""
    rights = OwnersOnly()
    relay, source = await steady(log("ownerless"), rights=rights)
    stranger = Recorder("mallory")
    await relay.join(JOB, stranger, None, Grant(None))
    source.record.owner = "alice"
    source.loss = 1
    source.publish(log("lost"))
    source.loss = 0
    source.publish(log("alice's"))
    source.deliver()
    await eventually(lambda: rights.ends == ["mallory"], "end of the right")
    assert stranger.lines == ["ownerless"]
    await relay.aclose()


async def test_a_newcomer_is_asked_about_if_the_owner_changed_while_it_joined() -> None:
    rights = OwnersOnly()
    relay, source, [admin] = await followed("admin", rights=rights)
    replace_record(source, "bob", "bob's")
    alice, bob = Recorder("alice"), Recorder("bob")
    refused, accepted = await asyncio.gather(
        relay.join(JOB, alice, None, Grant("alice")),
        relay.join(JOB, bob, None, Grant("alice")),
        return_exceptions=True,
    )
    assert isinstance(refused, NotAllowed)
    assert refused.refusal is NOT_FOUND
    assert not isinstance(accepted, BaseException)
    assert accepted.epoch == source.record.epoch
    assert (alice.events, bob.lines, admin.lines) == ([], ["bob's"], ["alice's", "bob's"])
    assert rights.ends == []  # alice had not joined
    source.publish(log("bob's 2"))
    source.deliver()
    await settle()
    assert (alice.events, bob.lines) == ([], ["bob's", "bob's 2"])
    await relay.aclose()


async def test_a_join_waits_for_the_answer_about_those_who_are_in() -> None:
    rights = OwnersOnly()
    relay, source, [alice] = await followed("alice", rights=rights)
    rights.answers.clear()
    replace_record(source, "bob", "bob's")
    source.deliver()
    await eventually(lambda: rights.asked, "question")
    bob = Recorder("bob")
    joining = asyncio.create_task(relay.join(JOB, bob, None, Grant("bob")))
    await settle()
    assert not joining.done()
    rights.answers.set()
    await joining
    assert (alice.lines, bob.lines) == (["alice's"], ["bob's"])
    assert rights.asked == [("alice", "bob")]
    await relay.aclose()


async def test_nothing_is_sent_until_rights_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcast.realtime.relay.RETRY_DELAY", 0)
    rights = OwnersOnly()
    relay, source, [alice, admin] = await followed("alice", "admin", rights=rights)
    rights.unavailable = True
    replace_record(source, "bob", "bob's")
    source.deliver()
    await eventually(lambda: len(rights.asked) > 6, "further questions")
    with pytest.raises(TransportUnavailable):
        await relay.join(JOB, Recorder("bob"), None, Grant("bob"))
    assert alice.lines == admin.lines == ["alice's"]
    rights.unavailable = False
    await eventually(lambda: admin.lines == ["alice's", "bob's"], "line of the new record")
    assert (alice.lines, rights.ends) == (["alice's"], ["alice"])
    await relay.aclose()


async def test_a_record_that_changes_while_rights_are_asked_is_asked_about_again() -> None:
    rights = OwnersOnly()
    relay, source, [alice, bob] = await followed("alice", "bob", rights=rights)
    rights.answers.clear()
    replace_record(source, "bob", "bob's")
    source.deliver()
    await eventually(lambda: rights.asked, "question")
    replace_record(source, "carol", "carol's")
    source.deliver()
    rights.answers.set()
    await eventually(lambda: relay.followed == 0, "end of the room")
    assert rights.ends == ["alice", "bob"]
    assert alice.lines == bob.lines == ["alice's"]
    await relay.aclose()


async def test_a_slow_answer_delays_no_other_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after an interruption, when more rooms wait for an answer than may read together."""
    monkeypatch.setattr("jobcast.realtime.relay.READING_AT_ONCE", 2)
    rights = OwnersOnly()
    sources = ManyJobs()
    relay = Relay(sources, rights=rights)
    relay.start()
    slow = [f"slow-{number}" for number in range(5)]
    followers = {job_id: Recorder("admin") for job_id in [*slow, "quick"]}
    for job_id, follower in followers.items():
        await relay.join(job_id, follower, None, Grant("alice"))
    rights.answers.clear()
    for job_id in slow:
        sources.records[job_id] = Record("bob", 10)
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
    """A source of several jobs, of which nothing comes live."""

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
        self.records[job_id].add(Outgoing.of(event), Retention())

    async def aclose(self) -> None: ...

    async def subscribe(self, job_id: str) -> None:
        self.records[job_id] = Record("alice", 10)
        self.add(job_id, "first")

    async def unsubscribe(self, job_id: str) -> None: ...

    async def owner(self, job_id: str) -> str | None:
        return self.records[job_id].owner

    async def positions(self, job_ids: Sequence[str]) -> list[Cursor]:
        return [self.records[job_id].position for job_id in job_ids]

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        await asyncio.sleep(0)
        return self.records[job_id].snapshot(after)


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


async def test_cursor_beyond_a_record_that_others_follow_gets_it_from_its_beginning() -> None:
    """The followers came after the record had gone back, so that it looks whole to them."""
    relay, source = await steady(log("0"), log("1"))
    first, again = Recorder("1"), Recorder("2")
    await relay.join(JOB, first)
    answer = await relay.join(JOB, again, Cursor(epoch=source.record.epoch, seq=7))
    assert not answer.recovered
    assert again.names == ["joined", "joined", "job_log", "job_log"]
    assert again.lines == ["0", "1"]
    assert first.lines == ["0", "1"]
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
