"""The rules of a record are written twice, in Python and in Lua; they are the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from jobcast.events import JobComplete, JobError, JobEvent, JobLog, JobProgress, JobStatus
from jobcast.testing import new_job_id
from jobcast.transports import NOBODY, Message, Origin, Outgoing, Retention, Run
from jobcast.transports.base import Required
from jobcast.transports.record import Records
from jobcast.transports.redis import Keys, RedisPublisher
from tests.conftest import Valkey

RETENTION = Retention(ttl=60, size=1000)

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


@pytest.fixture(scope="module")
def publisher(valkey: Valkey) -> Iterator[RedisPublisher]:
    publisher = RedisPublisher(valkey.url, retention=RETENTION)
    yield publisher
    publisher.close()


@given(said=said, together=st.booleans())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_lua_and_python_keep_the_same(
    valkey: Valkey, publisher: RedisPublisher, said: list[tuple[str, Run, str]], together: bool
) -> None:
    job_id = new_job_id()
    batch = [
        Outgoing.of(event(kind, job_id), Origin("alice", run), requires=cast("Required", requires))
        for kind, run, requires in said
    ]
    for some in [batch] if together else [[one] for one in batch]:
        publisher.publish(some)
    records = Records(RETENTION)
    for outgoing in batch:
        records.add(outgoing)
    record = records.get(job_id)
    client: Any = Redis.from_url(valkey.url, decode_responses=True)
    state = client.hgetall(Keys.of(job_id).state)
    entries = client.xrange(Keys.of(job_id).events)
    client.close()
    if record is None:
        assert not state
        return
    assert (state["state"], int(state["seq"])) == (record.state, record.seq)
    assert [fields["p"] for _, fields in entries] == [message.packet for message in record.events]
    assert state.get("progress") == _stored(record.progress)


def _stored(progress: Message | None) -> str | None:
    return None if progress is None else f"{progress.seq} {progress.packet}"
