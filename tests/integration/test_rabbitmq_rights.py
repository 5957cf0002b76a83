"""RabbitMQ users with exactly the rights that the documentation lists."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from amqp.exceptions import AccessRefused
from kombu.connection import Connection

from jobcast.errors import PublishFailed
from jobcast.events import JobStatus
from jobcast.testing import log, new_job_id
from jobcast.transports import Message, Outgoing, Run, TransportPublisher, open_publisher
from jobcast.transports.amqp.names import Names
from jobcast.transports.amqp.source import KombuClientManager
from jobcast.transports.cancellation import Cancellation, SupportsCancellationNotices
from jobcast.transports.leases import Finding, Lease, LeaseTimeouts, SupportsLeaseRenewal
from jobcast.transports.revocations import Revocation, SupportsRevoking
from tests.support import ROOT, TIMEOUT, eventually, new_id, wait_for
from tests.support.rabbitmq import RabbitMQ

GUIDE = ROOT / "docs" / "how-to" / "rabbitmq.md"
TERMS = LeaseTimeouts(lease=0.6, lost_after=60)


@pytest.fixture(scope="module")
def restricted(rabbitmq: RabbitMQ) -> Iterator[RabbitMQ]:
    """Create the users that the documentation lists, and delete them at the end."""
    users: list[str] = []
    for line in GUIDE.read_text().splitlines():
        if line.startswith("rabbitmqctl "):
            _, *arguments = shlex.split(line)
            rabbitmq.control(*arguments)
            if arguments[0] == "add_user":
                users.append(arguments[1])
    assert users == ["jobcast", "jobcast-worker"]
    yield rabbitmq
    for user in users:
        rabbitmq.control("delete_user", user)


def event_queues(broker: RabbitMQ) -> set[str]:
    queues = broker.control("list_queues", "name")
    return {queue for queue in queues if queue.startswith("jobcast.events")}


def url_of(broker: RabbitMQ, user: str) -> str:
    return broker.url.replace("guest:guest", f"{user}:PASSWORD")


@pytest.fixture
def worker(restricted: RabbitMQ) -> Iterator[TransportPublisher]:
    publisher = open_publisher(url_of(restricted, "jobcast-worker"))
    yield publisher
    publisher.close()


@asynccontextmanager
async def running_manager(
    broker: RabbitMQ, received: list[Message], user: str = "jobcast"
) -> AsyncIterator[KombuClientManager]:
    async def resumed() -> None:
        raise AssertionError("the queue was not lost")

    manager = KombuClientManager(url_of(broker, user))
    manager.source.start(lambda _, message: received.append(message), resumed)
    try:
        yield manager
    finally:
        await manager.aclose()


async def test_worker_publishes_and_server_receives(
    restricted: RabbitMQ, worker: TransportPublisher
) -> None:
    job_id, received = new_job_id(), list[Message]()
    lease = Lease(job_id, Run("aa", 1, "d1"))
    queues_of_other_tests = await asyncio.to_thread(event_queues, restricted)
    assert isinstance(worker, SupportsLeaseRenewal)
    async with running_manager(restricted, received) as manager:
        source = manager.source
        await source.subscribe(job_id)
        await asyncio.to_thread(worker.publish, [Outgoing.of(log(job_id))])
        await manager.publish_event(Outgoing.of(log(job_id)))
        await eventually(lambda: len(received) == 2, "events of a worker and of a server")
        await asyncio.to_thread(worker.emit, "news", "of a worker", room="lobby")
        await manager.emit("news", "of a server", room="lobby")
        bus = [await asyncio.wait_for(source.bus.get(), TIMEOUT) for _ in range(2)]
        assert "of a worker" in str(bus)
        assert "of a server" in str(bus)
        await asyncio.to_thread(worker.renew, [lease], 0.1)
        found: list[Finding] = []
        async with asyncio.timeout(TIMEOUT):
            while not found:
                found = await source.scan(TERMS)
                await asyncio.sleep(0.02)
        assert [finding.lease for finding in found] == [lease]
        await asyncio.to_thread(worker.release, [lease])
    # The manager deletes its queues when it closes.
    assert await asyncio.to_thread(event_queues, restricted) <= queues_of_other_tests


async def test_server_cancels_jobs_and_worker_hears_of_it(
    restricted: RabbitMQ, worker: TransportPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Cancellation] = []
    assert isinstance(worker, SupportsCancellationNotices)
    async with running_manager(restricted, []) as manager:
        await eventually(lambda: manager.source.ready, "source that is ready")
        listener = worker.listen(seen.append)
        job_ids: list[str] = []
        async with asyncio.timeout(TIMEOUT):
            # Notices follow the answers. The broker keeps requests too, those of other tests also.
            while not any(c.job_id in job_ids and c.outcome != "kept" for c in seen):
                job_id = new_job_id()
                job_ids.append(job_id)
                queued = JobStatus(job_id=job_id, status="queued")
                await asyncio.to_thread(worker.publish, [Outgoing.of(queued)])
                # The request follows the event in the queue of the server.
                answer = await manager.source.cancel(Cancellation(job_id=job_id))
                assert answer.outcome == "cancelled"
        listener.close()
        covering: list[Cancellation] = []
        worker.on_cancelled = covering.append
        started = JobStatus(job_id=job_id, status="started")
        await asyncio.to_thread(worker.publish, [Outgoing.of(started)])
        assert [cancellation.job_id for cancellation in covering] == [job_id]
    assert "refused" not in caplog.text


async def test_worker_without_rights_to_requests_publishes(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    rights = r"^jobcast(\.(events|leases))?$"
    rabbitmq.control("add_user", "publisher", "PASSWORD")
    rabbitmq.control("set_permissions", "-p", "/", "publisher", rights, rights, rights)
    publisher = open_publisher(url_of(rabbitmq, "publisher"))
    assert isinstance(publisher, SupportsCancellationNotices)
    publisher.on_cancelled = fail
    for _ in range(2):
        job = Outgoing.of(JobStatus(job_id=new_job_id(), status="started"))
        await asyncio.to_thread(publisher.publish, [job])
    publisher.close()
    rabbitmq.control("delete_user", "publisher")
    assert caplog.text.count("cannot learn of cancelled jobs before their runs begin") == 1


async def test_worker_reads_requests_once_its_permissions_are_complete(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    names = Names(new_id("prefix"))
    own_queues = rf"^{names.prefix}(\.(events|leases|cancellations))?(\.[0-9a-f]{{16}})?$"
    rabbitmq.control("add_user", "beginner", "PASSWORD")
    rabbitmq.control("set_permissions", "-p", "/", "beginner", *[own_queues] * 3)
    publisher = open_publisher(url_of(rabbitmq, "beginner"), prefix=names.prefix)
    assert isinstance(publisher, SupportsCancellationNotices)
    publisher.on_cancelled = fail

    def starts() -> bool:
        try:
            publisher.publish([Outgoing.of(JobStatus(job_id=new_job_id(), status="started"))])
        except PublishFailed:  # the connection has just been closed
            return False
        return True

    def queues() -> list[str]:
        return [name for name in rabbitmq.control("list_queues", "name") if names.prefix in name]

    assert await asyncio.to_thread(starts)
    assert "cannot learn of cancelled jobs" in caplog.text
    assert await asyncio.to_thread(queues) == []
    rabbitmq.control("set_permissions", "-p", "/", "beginner", ".*", ".*", ".*")
    rabbitmq.control("close_all_user_connections", "beginner", "test")
    await asyncio.to_thread(wait_for, starts, "published start")
    assert names.kept_requests().name in await asyncio.to_thread(queues)
    publisher.close()
    rabbitmq.control("delete_user", "beginner")


def fail(cancellation: Cancellation) -> None:
    raise AssertionError(f"heard of {cancellation}")


async def test_server_may_revoke_tokens_and_worker_may_not(restricted: RabbitMQ) -> None:
    revocation = Revocation(jti=new_job_id(), until=time.time() + 3600)
    received: list[Revocation] = []
    command = open_publisher(url_of(restricted, "jobcast"))
    assert isinstance(command, SupportsRevoking)
    async with running_manager(restricted, []) as manager:
        manager.source.watch_revocations(received.append)
        await eventually(lambda: manager.source.ready, "source that is ready")
        await asyncio.to_thread(command.revoke, revocation)
        await eventually(lambda: received, "revocation")
        assert revocation in await manager.source.revocations()
    command.close()
    worker = open_publisher(url_of(restricted, "jobcast-worker"))
    assert isinstance(worker, SupportsRevoking)
    with pytest.raises(PublishFailed, match="refused"):
        worker.revoke(revocation)
    worker.close()


async def test_worker_may_not_consume_events(
    restricted: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_manager(restricted, [], "jobcast-worker") as manager:
        await eventually(lambda: "access to exchange" in caplog.text, "refusal by the broker")
        assert not manager.source.ready


@pytest.mark.parametrize("user", ["jobcast", "jobcast-worker"])
def test_rights_are_limited_to_the_prefix(restricted: RabbitMQ, user: str) -> None:
    publisher = open_publisher(url_of(restricted, user), prefix="another")
    with pytest.raises(PublishFailed, match="refused"):
        publisher.publish([Outgoing.of(log(new_job_id()))])
    publisher.close()
    for exchange in ("jobcasts", "jobcast.others", "another.jobcast", "celery"):
        with (
            Connection(url_of(restricted, user)) as connection,
            pytest.raises(AccessRefused),
        ):
            connection.channel().exchange_declare(exchange, "fanout")
