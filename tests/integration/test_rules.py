"""The Python and Lua implementations of the record's rules behave the same."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby, pairwise
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType, structs
from redis import Redis

from jobcast.errors import PublishFailed
from jobcast.events import (
    NO_INFO,
    JobComplete,
    JobError,
    JobEvent,
    JobInfo,
    JobInfoUpdate,
    JobLog,
    JobProgress,
    JobStatus,
    now,
)
from jobcast.testing import new_job_id
from jobcast.transports import NO_ORIGIN, UNKNOWN_RUN, Message, Origin, Outgoing, Retention, Run
from jobcast.transports.base import NO_RECORD, Predecessor, Required
from jobcast.transports.cancellation import Cancellation
from jobcast.transports.memory import MemoryBroker
from jobcast.transports.record import PUBLISHERS
from jobcast.transports.redis.cancellation import parse_cancellation
from jobcast.transports.redis.codec import parse_messages
from jobcast.transports.redis.history import READ_SCRIPT, snapshot_of
from jobcast.transports.redis.names import Keys
from jobcast.transports.redis.publisher import RedisPublisher
from tests.conftest import Valkey

RETENTION = Retention(ttl=60, size=1000)
END = "end"  # marks the end of the messages published so far

#: A kind of event, its run, owner, required state and predecessor.
EventSpec = tuple[str, Run, str | None, str, Predecessor | None]

runs = st.one_of(
    st.just(UNKNOWN_RUN),
    st.builds(
        lambda sending, attempt, delivery, redelivered: Run(
            sending, attempt, delivery if attempt else "", redelivered and attempt > 0
        ),
        st.sampled_from(["", "aaaaaaaaaaaa", "aaaaaaaaaaaa.cccccccccccc", "bbbbbbbbbbbb"]),
        st.integers(0, 2),
        st.sampled_from(["111111111111", "222222222222", "222", "333333333333"]),
        st.booleans(),
    ),
)


def event(kind: str, job_id: str) -> JobEvent:
    match kind.removeprefix(DESCRIBED):
        case "progress":
            return JobProgress(job_id=job_id, percentage=1)
        case "log":
            return JobLog(job_id=job_id, level="info", message="x")
        case "complete":
            return JobComplete(job_id=job_id, result=None)
        case "error":
            return JobError(job_id=job_id, error="E", message="", reason="failure")
        case "revoked":
            return JobError(job_id=job_id, error="E", message="", reason="revoked")
        case "not cancellable queued":
            return JobStatus(job_id=job_id, status="queued", cancellable=False)
        case "terminated started":
            return JobStatus(job_id=job_id, status="started", worker="w", terminates=True)
        case "other worker's started":
            return JobStatus(job_id=job_id, status="started", worker="v")
        case "info":
            return JobInfoUpdate(job_id=job_id, title="i", tags=("i", "x"))
        case "queued" | "started" as status if kind.startswith(DESCRIBED):
            described = JobStatus(job_id=job_id, status=status, title=status, tags=(status, "x"))
            return structs.replace(described, task="t", queue="q", created_at=now())
        case status:
            return JobStatus(job_id=job_id, status=status)


def outgoing_of(
    kind: str, job_id: str, origin: Origin = NO_ORIGIN, number: int = 0, requires: str = ""
) -> Outgoing:
    """Encode an event, which has a description if its kind begins with ``described``."""
    described = kind.startswith(DESCRIBED)
    info = JobInfo(title=kind, tags=(kind, "x"), worker="w") if described else NO_INFO
    return Outgoing.of(event(kind, job_id), origin, number, cast("Required", requires), info)


DESCRIBED = "described "
KINDS = [
    "queued", "started", "started", "retrying", "stalled", "progress", "log", "complete", "error",
    "described queued", "described started", "info", "revoked",
    "terminated started", "other worker's started",
    "described complete", "described error", "described retrying",
]  # fmt: skip
CANCEL = "cancel"  # a request, among the kinds of events; with a required state, for an owner
owners = st.sampled_from([None, "alice", "alice", "bob"])
event_specs = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, CANCEL, CANCEL, CANCEL, "not cancellable queued"]),
        runs,
        owners,
        st.sampled_from(["", "", "", "started", "stalled", "pending"]),
    ),
    max_size=25,
)


# A running job that is cancelled, and what follows of the same sending.
FIRST_RUN = Run("aaaaaaaaaaaa", 1, "111111111111")
LATER_RUNS = [
    FIRST_RUN,
    Run("aaaaaaaaaaaa", 1, "222222222222", True),
    Run("aaaaaaaaaaaa", 2, "333333333333"),
    Run("aaaaaaaaaaaa.cccccccccccc", 1, "444444444444"),
    UNKNOWN_RUN,
]
cancelled_specs = st.lists(
    st.tuples(
        st.sampled_from([*KINDS, CANCEL]),
        st.sampled_from(LATER_RUNS),
        st.none(),
        st.sampled_from(["", "", "started", "stalled"]),
    ),
    max_size=6,
).map(lambda later: [("started", FIRST_RUN, None, ""), (CANCEL, FIRST_RUN, None, ""), *later])


# Ids of publishers; the last one is also the id of a sending.
NAMES = ["000000000000", "111111111111", "aaaaaaaaaaaa"]
sequenced_specs = st.tuples(
    st.sampled_from([*KINDS, "log", "log"]),
    runs,
    owners,
    st.sampled_from(["", "", "", "pending"]),
    # An event of another publisher that comes first: its publisher, number and time.
    st.one_of(
        st.none(),
        st.none(),
        st.builds(
            Predecessor,
            st.sampled_from(NAMES),
            st.integers(1, 6),
            st.sampled_from([0, int(time.time())]),
        ),
    ),
)
turns = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.lists(sequenced_specs, max_size=4),
        st.integers(0, 3),  # number of events that are published again after a lost reply
        st.sampled_from([""] * 18 + ["state", "lines"]),  # the key that is evicted before the turn
    ),
    max_size=12,
)


class Listener:
    """Receives the messages of the in-memory broker instead of a source."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.feeds: frozenset[str] = frozenset()  # it follows none

    def call_in_loop(self, _: object, job_id: str, message: Message) -> None:
        del job_id
        self.messages.append(message)

    def deliver(self, job_id: str, message: Message) -> None:
        """Do nothing: the broker only passes this method to ``call_in_loop``."""


class Both:
    """A job in Redis and in memory; every event is published to both."""

    def __init__(self, valkey: Valkey, publisher: RedisPublisher) -> None:
        self.job_id = new_job_id()
        self.memory = MemoryBroker(publisher._retention)
        self.sent: list[Message] = []  # messages of Redis
        self._redis = publisher
        self._listener = Listener()
        self.memory.attach(cast("Any", self._listener))
        self._client: Any = Redis.from_url(valkey.url)
        self._subscription = self._client.pubsub()
        self._subscription.subscribe(Keys.of(self.job_id).channel)

    def publish(self, batch: Sequence[Outgoing], name: str) -> Sequence[Outgoing]:
        """Publish a batch. Returns the events that both have left unsent."""
        self._redis.publisher_id = name
        seen: list[list[Cancellation]] = [[], []]
        self._redis.on_cancelled = seen[0].append
        unsent = _unsent(lambda: self._redis.publish(batch))
        assert unsent == _unsent(lambda: self.memory.publish(batch, name, seen[1].append))
        assert seen[0] == seen[1]
        return unsent

    def cancel(self, by: str, owner: str | UnsetType | None) -> None:
        """Request that the job is cancelled, and check that both give the same answer."""
        cancellation = Cancellation(job_id=self.job_id, by=by, owner=owner)
        assert self._redis.cancel(cancellation) == self.memory.cancel(cancellation)
        self.compare()

    @property
    def owner(self) -> str | None:
        record = self.memory._records.get(self.job_id)
        return None if record is None else record.owner

    def evict(self, part: str) -> None:
        """Evict a key of the job: its ``state``, with the statuses, or its log ``lines``."""
        records, keys = self.memory._records, Keys.of(self.job_id)
        if part == "lines":
            record = records.get(self.job_id)
            if record is not None:
                record.history._trim(record.history._lines, 0)
        else:
            for kept in (records._active, records._ended):
                kept.pop(self.job_id, None)
        self._client.delete(getattr(keys, part))

    def close(self) -> None:
        self._subscription.close()
        self._client.close()

    def receive(self) -> list[Message]:
        """Return the messages since the last call, and check that both sent the same packets."""
        received: list[Message] = []
        self._client.publish(Keys.of(self.job_id).channel, END)
        for item in self._subscription.listen():
            if item["data"] == END.encode():
                break
            if item["type"] == "message":
                received += parse_messages(item["data"])
        expected, self._listener.messages = self._listener.messages, []
        assert [m.packet for m in received] == [m.packet for m in expected]
        assert len({m.epoch for m in received}) == len({m.epoch for m in expected})
        self.sent += received
        return received

    def compare(self) -> None:
        """Check that both hold the same record."""
        keys = Keys.of(self.job_id)
        stored = snapshot_of(self._client.eval(READ_SCRIPT, 2, keys.state, keys.lines, 0), 0)
        record = self.memory._records.get(self.job_id)
        if record is None:
            assert stored.epoch == NO_RECORD
            return
        expected = record.snapshot(None)
        assert (stored.state, stored.seq, stored.owner) == (record.state, record.seq, record.owner)
        assert [m.packet for m in stored.events] == [m.packet for m in expected.events]
        assert stored.complete_from == expected.complete_from
        assert stored.info == expected.info
        numbers = [f"{name}:{number}" for name, number in record.numbers.items()]
        assert (self._client.hget(keys.state, "numbers") or b"").decode().split() == numbers
        lives_on = record.expires_at - time.monotonic() > RETENTION.ttl
        assert (self._client.ttl(keys.state) > RETENTION.ttl) == lives_on
        kept = self._client.hget(keys.state, "cancel")
        assert (parse_cancellation(kept) if kept else None) == record.cancellation


class RetryingPublisher:
    """A publisher like a worker's: it sends unsent events again before newer ones."""

    def __init__(self, both: Both, name: str) -> None:
        self.stored: list[Outgoing] = []
        self._both = both
        self._name = name
        self._unsent: list[Outgoing] = []
        self._number = 0

    def publish(self, events: Sequence[Outgoing], again: int) -> list[Outgoing]:
        """Publish events. Returns those that were accepted for the first time."""
        for event in events:
            self._number += 1
            head = event.head.replace('"x"', f'"{self._name} {self._number}"')
            self._unsent.append(structs.replace(event, number=self._number, head=head))
        repeated = self.stored[-again:] if again else []
        unsent = self._both.publish([*repeated, *self._unsent], self._name)
        taken = [event for event in self._unsent if event not in unsent]
        self.stored += taken
        self._unsent = [event for event in self._unsent if event in unsent]
        return taken


@pytest.fixture(scope="module")
def publisher(valkey: Valkey) -> Iterator[RedisPublisher]:
    publisher = RedisPublisher(valkey.url, retention=RETENTION)
    yield publisher
    publisher.close()


@pytest.fixture(scope="module")
def trimming_publisher(valkey: Valkey) -> Iterator[RedisPublisher]:
    """A publisher that retains few events, on a server that trims streams exactly."""
    publisher = RedisPublisher(valkey.url, retention=Retention(ttl=60, size=3, statuses=2))
    client: Any = Redis.from_url(valkey.url)
    client.config_set("stream-node-max-entries", 1)
    yield publisher
    client.config_set("stream-node-max-entries", 100)
    client.close()
    publisher.close()


@pytest.fixture
def new_job(valkey: Valkey, publisher: RedisPublisher) -> Iterator[Callable[[], Both]]:
    made: list[Both] = []

    def make() -> Both:
        made.append(Both(valkey, publisher))
        return made[-1]

    yield make
    for both in made:
        both.close()


@given(specs=st.one_of(event_specs, cancelled_specs), together=st.booleans(), trims=st.booleans())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_lua_and_python_keep_the_same_record(
    valkey: Valkey,
    publisher: RedisPublisher,
    trimming_publisher: RedisPublisher,
    specs: list[tuple[str, Run, str | None, str]],
    together: bool,
    trims: bool,
) -> None:
    with closing(Both(valkey, trimming_publisher if trims else publisher)) as both:
        for is_request, group in groupby(enumerate(specs), lambda item: item[1][0] == CANCEL):
            some = [(place, *spec) for place, spec in group]
            if is_request:
                place, _, _, owner, requires = some[0]
                both.cancel(f"user {place}", owner if requires else UNSET)
                continue
            batch = [
                outgoing_of(kind, both.job_id, Origin(owner, run), requires=requires)
                for _, kind, run, owner, requires in some
            ]
            for part in [batch] if together else [[one] for one in batch]:
                assert both.publish(part, NAMES[0]) == []
                both.compare()
        both.receive()


@given(turns=turns)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_interleaved_publishers_and_lost_records_keep_all_guarantees(
    valkey: Valkey, publisher: RedisPublisher, turns: list[tuple[str, list[EventSpec], int, str]]
) -> None:
    """Several publishers of one job may wait for each other and may repeat events."""
    with closing(Both(valkey, publisher)) as both:
        publishers = {name: RetryingPublisher(both, name) for name in NAMES}
        owners_of: defaultdict[str, set[str]] = defaultdict(set)  # owners per epoch
        for name, specs, again, evicted in turns:
            if evicted:
                both.evict(evicted)
            owner = both.owner
            taken = publishers[name].publish(
                [_outgoing(both.job_id, *spec) for spec in specs], again
            )
            epoch_of = {_identity(m.packet): m.epoch for m in both.receive()}
            both.compare()
            others = {owner, both.owner, *(outgoing.owner for outgoing in taken)} - {None}
            for outgoing in taken:
                epoch = epoch_of.get(_identity(outgoing.head))
                if outgoing.kind != "l" or outgoing.requires:
                    continue
                if epoch is None:
                    assert outgoing.owner
                    assert others - {outgoing.owner}, "a line was dropped"
                elif outgoing.owner:
                    owners_of[epoch].add(outgoing.owner)
        assert all(len(owners) <= 1 for owners in owners_of.values())
        assert_seq_grows(both.sent)
        assert_one_end_a_run(both.sent)
        if not any(evicted == "state" for *_, evicted in turns):
            lines = [_identity(message.packet) for message in both.sent if message.kind == "l"]
            assert len(lines) == len(set(lines))


def assert_seq_grows(messages: Sequence[Message]) -> None:
    for one, other in pairwise(messages):
        assert one.epoch != other.epoch or one.seq < other.seq
    epochs = [message.epoch for message in messages]
    assert len([*groupby(epochs)]) == len(set(epochs)), "an epoch occurs again"


def assert_one_end_a_run(messages: Sequence[Message]) -> None:
    """Check that only log lines follow a terminal event until another run or record begins."""
    for _, of_epoch in groupby(messages, key=lambda message: message.epoch):
        has_ended = False
        for message in of_epoch:
            begins = '"status":"queued"' in message.packet or '"status":"started"' in message.packet
            assert not has_ended or begins or message.kind == "l"
            has_ended = message.kind == "t" or (has_ended and not begins)


def test_record_remembers_the_numbers_of_the_latest_publishers_only(
    new_job: Callable[[], Both],
) -> None:
    """One process after another uses the same job id."""
    both = new_job()
    names = [f"{number:012x}" for number in range(3 * PUBLISHERS)]
    for name in names:
        run = Origin(run=Run(name, 1, name))
        both.publish([_numbered(both.job_id, kind, run, n) for n, kind in enumerate(RUN, 1)], name)
        both.compare()
    record = both.memory._records.get(both.job_id)
    assert record is not None
    assert list(record.numbers) == names[-PUBLISHERS:]
    seq = record.seq
    for name in names[-PUBLISHERS:]:
        both.publish([_numbered(both.job_id, "started", Origin(), 1)], name)
    both.compare()
    assert record.seq == seq


def test_dropped_event_does_not_block_later_events(new_job: Callable[[], Both]) -> None:
    both = new_job()
    both.publish([_numbered(both.job_id, "started", Origin(), 1)], NAMES[0])
    revoked = outgoing_of("error", both.job_id, number=2, requires="pending")
    assert both.publish([revoked, _numbered(both.job_id, "log", Origin(), 3)], NAMES[0]) == []
    both.compare()


def test_predecessor_of_unknown_age_is_not_awaited_without_a_record(
    new_job: Callable[[], Both],
) -> None:
    """The record expired, or the store was cleared, or a RabbitMQ consumer just started."""
    both, other = new_job(), new_job()
    batch = [
        _numbered(both.job_id, "started", Origin(after=f"{NAMES[1]} 7"), 1),
        _numbered(both.job_id, "complete", Origin(), 2),
    ]
    assert both.publish(batch, NAMES[0]) == []
    both.compare()
    other.publish([_numbered(other.job_id, "queued", Origin(), 1)], NAMES[2])
    batch = [structs.replace(outgoing, job_id=other.job_id) for outgoing in batch]
    assert other.publish(batch, NAMES[0]) == batch
    other.compare()


RUN = ["started", "log", "complete"]


def _numbered(job_id: str, kind: str, origin: Origin, number: int) -> Outgoing:
    return outgoing_of(kind, job_id, origin, number)


def _outgoing(
    job_id: str,
    kind: str,
    run: Run,
    owner: str | None,
    requires: str,
    after: Predecessor | None,
) -> Outgoing:
    origin = Origin(owner, run, "" if after is None else str(after))
    return outgoing_of(kind, job_id, origin, requires=requires)


def _unsent(publish: Callable[[], object]) -> Sequence[Any]:
    try:
        publish()
    except PublishFailed as exc:
        return exc.unsent if exc.held else ["the whole batch, unsuccessfully"]
    return []


def _identity(packet: str) -> str:
    """Return the part that a packet and its head have in common."""
    return packet.partition('"seq":')[0]
