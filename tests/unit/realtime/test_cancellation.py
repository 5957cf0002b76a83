"""Requests to cancel jobs, while other processes use the same ids."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from jobcast import JobTarget
from jobcast.events import CancelAccepted, CancelJob, JobStatus, Refusal
from jobcast.realtime.authorization import Authorizer
from jobcast.realtime.cancellation import NOT_ALLOWED, CancelService
from jobcast.realtime.connection.refusals import RefusalLog
from jobcast.settings import Settings
from jobcast.targets import Target
from jobcast.testing import new_job_id
from jobcast.tokens import Subject
from jobcast.transports import Origin, Outgoing, Run
from jobcast.transports.memory import MemoryBroker, MemorySource

ALICE = Subject(sub="alice")

Send = Callable[[str | None, str], None]

meanwhile: list[Callable[[], None]] = []  # what happens while the rule decides


async def owners_only(subject: Subject, action: str, target: Target) -> bool:
    assert isinstance(target, JobTarget)
    if action == "cancel":
        for happens in meanwhile:
            happens()
    return target.owner in (None, subject.sub)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker.at(f"memory://{new_job_id()}")


@pytest.fixture
def job_id() -> str:
    return new_job_id()


@pytest.fixture
def send(broker: MemoryBroker, job_id: str) -> Iterator[Send]:
    """Return a function that sends the job for an owner, with the id of the sending."""

    def send_for(owner: str | None, sending: str) -> None:
        status = JobStatus(job_id=job_id, status="queued")
        broker.publish([Outgoing.of(status, Origin(owner, Run(sending)))])

    yield send_for
    meanwhile.clear()


async def cancel(
    broker: MemoryBroker, job_id: str, subject: Subject, rule: str | None = "owners_only"
) -> CancelAccepted | Refusal:
    async def accept(_: Subject) -> None: ...

    settings = Settings(authorize=None if rule is None else f"{__name__}:{rule}")
    source = MemorySource(broker)
    with closing(Authorizer(settings, source)) as authorizer:
        refusals = RefusalLog(logging.getLogger(__name__))
        service = CancelService(source, settings, authorizer, refusals, accept)
        return await service.cancel(subject, CancelJob(job_id=job_id))


@pytest.mark.parametrize("before", ["alice", None])
async def test_job_of_another_owner_is_not_cancelled_for_the_former_one(
    broker: MemoryBroker, job_id: str, send: Send, before: str | None
) -> None:
    send(before, "aa")
    meanwhile.append(lambda: send("bob", "bb"))
    assert await cancel(broker, job_id, ALICE) == NOT_ALLOWED
    snapshot = await MemorySource(broker).snapshot(job_id)
    assert (snapshot.info.owner, snapshot.state) == ("bob", "queued")


async def test_job_that_is_sent_again_for_its_owner_is_cancelled(
    broker: MemoryBroker, job_id: str, send: Send
) -> None:
    send("alice", "aa")
    meanwhile.append(lambda: send("alice", "bb"))
    expected = CancelAccepted(job_id=job_id, outcome="cancelled")
    assert await cancel(broker, job_id, ALICE) == expected


async def test_token_that_names_a_job_cancels_it_for_any_owner(
    broker: MemoryBroker, job_id: str, send: Send
) -> None:
    send("bob", "aa")
    subject = Subject(sub="alice", claims={"jobs": [job_id], "can": ["cancel"]})
    expected = CancelAccepted(job_id=job_id, outcome="cancelled")
    assert await cancel(broker, job_id, subject, rule=None) == expected
