"""The rules of a record are written twice, in Python and in Lua; they are the same rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from redis import Redis

from jobcast.errors import PublishFailed
from jobcast.events import JobComplete, JobError, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.testing import new_job_id
from jobcast.transports import NOBODY, Message, Origin, Outgoing, Retention, Run
from jobcast.transports.base import Required
from jobcast.transports.memory import MemoryBroker
from jobcast.transports.record import PUBLISHERS
from jobcast.transports.redis import RedisPublisher
from jobcast.transports.redis_names import Keys
from tests.conftest import Valkey

RETENTION = Retention(ttl=60, size=1000)

#: A kind of event, the run that says it, what it requires, and what it comes after.
Word = tuple[str, Run, str, tuple[str, int] | None]

runs = st.one_of(
    st.just(NOBODY),
    st.builds(
        lambda sending, attempt, delivery, redelivered: Run(
            sending, attempt, delivery if attempt else "", redelivered and attempt > 0
        ),
        st.sampled_from(["", "aaaaaaaaaaaa", "bbbbbbbbbbbb"]),
        st.integers(0, 2),
        st.sampled_from(["111111111111", "222222222222", "222", "333333333333"]),
        st.booleans(),
    ),
)


def event(kind: str, job_id: str) -> JobEvent:
    match kind:
        case "progress":
            return JobProgress(job_id=job_id, percentage=1, message=None)
        case "log":
            return JobLog(job_id=job_id, level="info", message="x")
        case "complete":
            return JobComplete(job_id=job_id, result=None)
        case "error":
            return JobError(job_id=job_id, error="E", message="", reason="failure")
    return JobStatus(job_id=job_id, status=kind)  # type: ignore[arg-type]


KINDS = [
    "queued", "started", "started", "retrying", "stalled", "progress", "log", "complete", "error",
]  # fmt: skip
said = st.lists(
    st.tuples(
        st.sampled_from(KINDS), runs, st.sampled_from(["", "", "", "started", "stalled", "pending"])
    ),
    max_size=25,
)


NAMES = ["000000000000", "111111111111", "aaaaaaaaaaaa"]  # of publishers, one of a sending too
words = st.tuples(
    st.sampled_from(KINDS),
    runs,
    st.sampled_from(["", "", "", "pending"]),
    # What another says before: who, and which number.
    st.one_of(st.none(), st.none(), st.tuples(st.sampled_from(NAMES), st.integers(1, 6))),
)
turns = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.lists(words, max_size=4),
        st.integers(0, 3),  # how many are sent again, the answer having been lost
    ),
    max_size=12,
)


class Both:
    """A job in Redis and in memory, of which the same is said to both."""

    def __init__(self, valkey: Valkey, publisher: RedisPublisher) -> None:
        self.job_id = new_job_id()
        self.memory = MemoryBroker(RETENTION)
        self._valkey = valkey
        self._redis = publisher

    def say(self, batch: Sequence[Outgoing], name: str) -> Sequence[Outgoing]:
        """Publish it. Returns what neither of them has taken."""
        self._redis.publisher_id = name
        unsent = _unsent(lambda: self._redis.publish(batch))
        assert unsent == _unsent(lambda: self.memory.publish(batch, name))
        return unsent

    def compare(self) -> None:
        """Check that the same is there."""
        record = self.memory._records.get(self.job_id)
        client: Any = Redis.from_url(self._valkey.url, decode_responses=True)
        state = client.hgetall(Keys.of(self.job_id).state)
        entries = client.xrange(Keys.of(self.job_id).events)
        client.close()
        if record is None:
            assert not state
            return
        assert (state["state"], int(state["seq"])) == (record.state, record.seq)
        assert [fields["p"] for _, fields in entries] == [m.packet for m in record.events]
        assert state.get("progress") == _stored(record.progress)
        said = [f"{name}:{number}" for name, number in record.said.items()]
        assert state.get("said", "").split() == said


class Speaker:
    """A publisher, as a worker has one: what was not taken is sent again, before anything newer."""

    def __init__(self, both: Both, name: str) -> None:
        self._both = both
        self._name = name
        self._stored: list[Outgoing] = []
        self._unsent: list[Outgoing] = []
        self._number = 0

    def speak(self, events: Sequence[Outgoing], again: int) -> None:
        for event in events:
            self._number += 1
            self._unsent.append(structs.replace(event, number=self._number))
        repeated = self._stored[-again:] if again else []
        unsent = self._both.say([*repeated, *self._unsent], self._name)
        self._stored += [event for event in self._unsent if event not in unsent]
        self._unsent = [event for event in self._unsent if event in unsent]


@pytest.fixture(scope="module")
def publisher(valkey: Valkey) -> Iterator[RedisPublisher]:
    publisher = RedisPublisher(valkey.url, retention=RETENTION)
    yield publisher
    publisher.close()


@given(said=said, together=st.booleans())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_lua_and_python_keep_the_same(
    valkey: Valkey, publisher: RedisPublisher, said: list[tuple[str, Run, str]], together: bool
) -> None:
    both = Both(valkey, publisher)
    batch = [
        Outgoing.of(
            event(kind, both.job_id), Origin("alice", run), requires=cast("Required", requires)
        )
        for kind, run, requires in said
    ]
    for some in [batch] if together else [[one] for one in batch]:
        assert both.say(some, NAMES[0]) == []
    both.compare()


@given(turns=turns)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_lua_and_python_hold_and_recognise_the_same(
    valkey: Valkey, publisher: RedisPublisher, turns: list[tuple[str, list[Word], int]]
) -> None:
    """Several publishers speak of a job, each of which may wait for another, and repeat itself."""
    both = Both(valkey, publisher)
    speakers = {name: Speaker(both, name) for name in NAMES}
    for name, said, again in turns:
        speakers[name].speak([_outgoing(both.job_id, *word) for word in said], again)
        both.compare()


def test_the_numbers_of_the_latest_publishers_are_remembered_and_no_others(
    valkey: Valkey, publisher: RedisPublisher
) -> None:
    """An id that is used again and again, by one process after the other."""
    both = Both(valkey, publisher)
    names = [f"{number:012x}" for number in range(3 * PUBLISHERS)]
    for name in names:
        run = Origin(run=Run(name, 1, name))
        both.say([_numbered(both.job_id, kind, run, n) for n, kind in enumerate(RUN, 1)], name)
        both.compare()
    record = both.memory._records.get(both.job_id)
    assert record is not None
    assert list(record.said) == names[-PUBLISHERS:]
    seq = record.seq
    for name in names[-PUBLISHERS:]:
        both.say([_numbered(both.job_id, "started", Origin(), 1)], name)
    both.compare()
    assert record.seq == seq


def test_what_is_dropped_holds_up_nothing(valkey: Valkey, publisher: RedisPublisher) -> None:
    both = Both(valkey, publisher)
    both.say([_numbered(both.job_id, "started", Origin(), 1)], NAMES[0])
    revoked = Outgoing.of(event("error", both.job_id), number=2, requires="pending")
    assert both.say([revoked, _numbered(both.job_id, "log", Origin(), 3)], NAMES[0]) == []
    both.compare()


def test_where_there_is_no_record_nothing_is_waited_for(
    valkey: Valkey, publisher: RedisPublisher
) -> None:
    """It has expired, or the store was emptied, or a process of RabbitMQ's was just started."""
    both, other = Both(valkey, publisher), Both(valkey, publisher)
    batch = [
        _numbered(both.job_id, "started", Origin(after=f"{NAMES[1]} 7"), 1),
        _numbered(both.job_id, "complete", Origin(), 2),
    ]
    assert both.say(batch, NAMES[0]) == []
    both.compare()
    other.say([_numbered(other.job_id, "queued", Origin(), 1)], NAMES[2])
    batch = [structs.replace(outgoing, job_id=other.job_id) for outgoing in batch]
    assert other.say(batch, NAMES[0]) == batch
    other.compare()


RUN = ["started", "log", "complete"]


def _numbered(job_id: str, kind: str, origin: Origin, number: int) -> Outgoing:
    return Outgoing.of(event(kind, job_id), origin, number)


def _outgoing(
    job_id: str, kind: str, run: Run, requires: str, after: tuple[str, int] | None
) -> Outgoing:
    named = "" if after is None else f"{after[0]} {after[1]}"
    origin = Origin("alice", run, named)
    return Outgoing.of(event(kind, job_id), origin, requires=cast("Required", requires))


def _unsent(publish: Callable[[], None]) -> Sequence[Any]:
    try:
        publish()
    except PublishFailed as exc:
        return exc.unsent if exc.held else ["all of it, in vain"]
    return []


def _stored(progress: Message | None) -> str | None:
    return None if progress is None else f"{progress.seq} {progress.packet}"
