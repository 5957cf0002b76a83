"""Requests to cancel jobs that RabbitMQ keeps for workers that start later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

import pytest
from amqp.basic_message import Message as BasicMessage
from kombu.connection import Connection
from kombu.exceptions import KombuError
from msgspec import structs

from jobcast.errors import PublishFailed, TransportUnavailable
from jobcast.events import JobComplete, JobStatus
from jobcast.testing import new_job_id
from jobcast.transports import Message, Origin, Outgoing, Run
from jobcast.transports.amqp import canceller, inbox
from jobcast.transports.amqp import listener as control_channel
from jobcast.transports.amqp.cancellation import CancelRequest
from jobcast.transports.amqp.kept import read_kept, receive_all
from jobcast.transports.amqp.names import REQUEST_KEY, Names
from jobcast.transports.amqp.publisher import KombuPublisher
from jobcast.transports.amqp.requests import KnownRequests
from jobcast.transports.amqp.source import KombuSource
from jobcast.transports.cancellation import CancelAnswer, Cancellation
from tests.support import TIMEOUT, eventually, new_id, wait_for
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_pipeline import on_admin_channel

ALREADY_ENDED = CancelAnswer(outcome="already_ended")
READERS = 4
MANY = 1_000_000
MANY_ARRIVALS = 100
SENT, RUN = Run("aa"), Run("aa", 1, "d1")


@pytest.fixture
def names() -> Names:
    return Names(new_id("prefix"))


def status(job_id: str, status: str, run: Run) -> Outgoing:
    event = JobStatus(job_id=job_id, status=status)
    return Outgoing.of(event, Origin(run=run))


def request(job_id: str, sending: str = SENT.sending) -> CancelRequest:
    """Return a request that takes effect."""
    return CancelRequest.of(Cancellation(job_id=job_id, sending=sending), takes_effect=True)


class InterruptingPublisher(KombuPublisher):
    """Calls a function before it passes on a request that is to take effect."""

    def __init__(
        self, url: str, names: Names, interrupt: Callable[[KombuPublisher], object]
    ) -> None:
        super().__init__(url, prefix=names.prefix)
        self._interrupt = interrupt

    def request_cancellation(self, request: CancelRequest) -> None:
        if request.takes_effect:
            self._interrupt(self)
        super().request_cancellation(request)


def keep(url: str, names: Names, *bodies: bytes) -> None:
    with Connection(url) as broker:
        names.kept_requests()(broker.channel()).declare()
        producer = broker.Producer(exchange=names.cancellations_exchange())
        for body in bodies:
            producer.publish(body, routing_key=REQUEST_KEY, delivery_mode=2)


def heard_at_start(url: str, names: Names, job_id: str, run: Run = RUN) -> list[str]:
    """Begin a run in a new publisher. Return the jobs that it learns of."""
    seen: list[Cancellation] = []
    publisher = KombuPublisher(url, prefix=names.prefix)
    publisher.on_cancelled = seen.append
    publisher.publish([status(job_id, "started", run)])
    publisher.close()
    return [cancellation.job_id for cancellation in seen]


@asynccontextmanager
async def sources(url: str, names: Names, count: int) -> AsyncIterator[list[KombuSource]]:
    """Run the receiving ends of some server processes."""

    def receive(job_id: str, message: Message) -> None:
        del job_id, message

    async def resumed() -> None: ...

    running = [KombuSource(url, prefix=names.prefix) for _ in range(count)]
    try:
        for source in running:
            source.start(receive, resumed)
        await eventually(lambda: all(source.ready for source in running), "ready sources")
        yield running
    finally:
        for source in running:
            await source.aclose()


async def test_concurrent_readers_find_each_kept_request(rabbitmq: RabbitMQ, names: Names) -> None:
    jobs = [new_job_id() for _ in range(200)]
    keep(rabbitmq.url, names, *(request(job_id).encode() for job_id in jobs))
    with ThreadPoolExecutor(READERS) as pool:
        wanted = jobs[:: len(jobs) // (2 * READERS)]
        heard = pool.map(lambda job_id: heard_at_start(rabbitmq.url, names, job_id), wanted)
        assert [*heard] == [[job_id] for job_id in wanted]


async def test_foreign_messages_are_removed(
    rabbitmq: RabbitMQ, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = new_job_id()
    keep(rabbitmq.url, names, b"hello", request(job_id).encode(), b"{}")
    for _ in range(2):
        assert heard_at_start(rabbitmq.url, names, job_id) == [job_id]
    assert caplog.text.count("that is not jobcast's") == 2


async def test_publisher_learns_of_many_requests_at_once(rabbitmq: RabbitMQ, names: Names) -> None:
    """The process has run nothing for long."""
    seen: list[Cancellation] = []
    publisher = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    publisher.on_cancelled = seen.append
    publisher.publish([status(new_job_id(), "started", RUN)])
    jobs = [new_job_id() for _ in range(500)]
    keep(rabbitmq.url, names, *(request(job_id).encode() for job_id in jobs))
    for job_id in (jobs[0], jobs[-1], new_job_id()):
        publisher.publish([status(job_id, "started", RUN)])
    publisher.close()
    assert [cancellation.job_id for cancellation in seen] == [jobs[0], jobs[-1]]


async def test_publish_succeeds_while_another_process_reads_the_kept_requests(
    rabbitmq: RabbitMQ,
    names: Names,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inbox, "LOCK_TRIES", 3)
    seen, job_id = list[Cancellation](), new_job_id()
    keep(rabbitmq.url, names, request(job_id).encode())
    publisher = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    publisher.on_cancelled = seen.append
    with Connection(rabbitmq.url) as reader:
        reader.channel().queue_declare(names.read_lock(names.cancellations), exclusive=True)
        for _ in range(2):
            publisher.publish([status(job_id, "started", RUN)])
    assert seen == []
    assert caplog.text.count("reading them with the next status") == 1
    publisher.publish([status(job_id, "started", RUN)])
    assert [cancellation.job_id for cancellation in seen] == [job_id]
    publisher.close()


async def test_lost_queue_for_requests_is_not_taken_for_a_lost_exchange(
    rabbitmq: RabbitMQ, names: Names
) -> None:
    seen, job_id = list[Cancellation](), new_job_id()
    publisher = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    publisher.on_cancelled = seen.append
    async with sources(rabbitmq.url, names, 1):
        await asyncio.to_thread(publisher.publish, [status(new_job_id(), "started", RUN)])
        assert publisher._inbox is not None
        publisher._inbox._channel.queue_delete(publisher._inbox._queue)
        batch = [status(job_id, "started", RUN)]
        with pytest.raises(PublishFailed, match="could not read the requests to cancel jobs"):
            await asyncio.to_thread(publisher.publish, batch)
        assert publisher._audience._missing_since is None
        keep(rabbitmq.url, names, request(job_id).encode())
        await asyncio.to_thread(publisher.publish, batch)
        assert [cancellation.job_id for cancellation in seen] == [job_id]
    await asyncio.to_thread(publisher.close)


async def test_request_takes_effect_in_all_processes_with_the_same_sending(
    rabbitmq: RabbitMQ, names: Names
) -> None:
    job_id, publisher = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)

    async def state(source: KombuSource) -> str:
        return (await source.snapshot(job_id)).state

    async with sources(rabbitmq.url, names, 2) as (one, other):
        await asyncio.to_thread(publisher.publish, [status(job_id, "queued", SENT)])
        # The answer follows the event in the queue of the process.
        answer = await one.cancel(Cancellation(job_id=job_id))
        assert answer.outcome == "cancelled"
        assert (await other.cancel(Cancellation(job_id=job_id))).outcome == "already_ended"
        assert [await state(source) for source in (one, other)] == ["cancelled", "cancelled"]
        await asyncio.to_thread(publisher.publish, [status(job_id, "queued", Run("bb"))])
        await asyncio.to_thread(publisher.request_cancellation, request(job_id))
        assert (await one.cancel(Cancellation(job_id=new_job_id()))).outcome == "job_not_found"
        assert await state(one) == "queued"
    await asyncio.to_thread(publisher.close)


@pytest.mark.parametrize("sending", ["", "aa"], ids=["unknown", "replaced"])
async def test_request_takes_effect_in_a_process_that_is_behind(
    rabbitmq: RabbitMQ, names: Names, sending: str
) -> None:
    """Another process has seen the task that replaces the first one."""
    job_id, publisher = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)
    async with sources(rabbitmq.url, names, 1) as (source,):
        await asyncio.to_thread(publisher.publish, [status(job_id, "queued", Run(sending))])
        await asyncio.to_thread(publisher.request_cancellation, request(job_id, "aa.cc"))
        assert await source.cancel(Cancellation(job_id=job_id)) == ALREADY_ENDED
        await asyncio.to_thread(publisher.publish, [status(job_id, "started", Run("aa.cc", 1))])
        assert await source.cancel(Cancellation(job_id=job_id)) == ALREADY_ENDED
        assert (await source.snapshot(job_id)).state == "cancelled"
    await asyncio.to_thread(publisher.close)


async def test_request_without_effect_is_withdrawn(rabbitmq: RabbitMQ, names: Names) -> None:
    """The job ends after the server has asked for its sending."""
    job_id, worker = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)
    seen = list[Cancellation]()
    worker.on_cancelled = seen.append
    completed = Outgoing.of(JobComplete(job_id=job_id, result=None), Origin(run=RUN))
    async with sources(rabbitmq.url, names, 1) as (source,):
        source._canceller._publisher = InterruptingPublisher(
            rabbitmq.url, names, lambda publisher: publisher.publish([completed])
        )
        await asyncio.to_thread(worker.publish, [status(job_id, "started", RUN)])
        assert await source.cancel(Cancellation(job_id=job_id)) == ALREADY_ENDED
        redelivered = Run("aa", 1, "d2", True)
        await asyncio.to_thread(worker.publish, [status(job_id, "started", redelivered)])
        assert seen == []
        assert not await asyncio.to_thread(heard_at_start, rabbitmq.url, names, job_id, redelivered)
    await asyncio.to_thread(worker.close)


@pytest.mark.parametrize("times", [1, 2])
async def test_job_that_is_sent_again_meanwhile_is_cancelled_or_the_request_fails(
    rabbitmq: RabbitMQ, names: Names, times: int
) -> None:
    job_id, sendings = new_job_id(), iter(["bb", "cc"][:times])

    def send_again(publisher: KombuPublisher) -> None:
        for sending in sendings:
            publisher.publish([status(job_id, "queued", Run(sending))])
            return

    async with sources(rabbitmq.url, names, 1) as (source,):
        source._canceller._publisher = InterruptingPublisher(rabbitmq.url, names, send_again)
        first = status(job_id, "queued", SENT)
        await asyncio.to_thread(source._canceller._publisher.publish, [first])
        if times == 1:
            assert (await source.cancel(Cancellation(job_id=job_id))).outcome == "cancelled"
        else:
            with pytest.raises(TransportUnavailable, match="sent again"):
                await source.cancel(Cancellation(job_id=job_id))
            assert (await source.snapshot(job_id)).state == "queued"
        in_force = [
            sending
            for sending in ("aa", "bb", "cc")
            if await asyncio.to_thread(
                heard_at_start, rabbitmq.url, names, job_id, Run(sending, 1, f"d-{sending}")
            )
        ]
        assert in_force == (["bb"] if times == 1 else [])


async def test_workers_hear_of_a_request_whose_answer_is_late(
    rabbitmq: RabbitMQ, names: Names
) -> None:
    late: list[CancelRequest] = []

    class LatePublisher(KombuPublisher):
        def request_cancellation(self, request: CancelRequest) -> None:
            if request.takes_effect and request.cancellation.message == "late":
                late.append(request)
                raise PublishFailed("no confirmation in time", ())
            super().request_cancellation(request)

    seen = list[Cancellation]()
    worker = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    listener = worker.listen(seen.append)
    async with sources(rabbitmq.url, names, 1) as (source,):
        source._canceller._publisher = LatePublisher(rabbitmq.url, prefix=names.prefix)
        async with asyncio.timeout(TIMEOUT):
            while not seen:  # until the listener has subscribed
                job_id = new_job_id()
                await asyncio.to_thread(worker.publish, [status(job_id, "queued", SENT)])
                await source.cancel(Cancellation(job_id=job_id))
        await asyncio.to_thread(worker.publish, [status(job_id := new_job_id(), "queued", SENT)])
        with pytest.raises(PublishFailed):
            await source.cancel(Cancellation(job_id=job_id, message="late"))
        await asyncio.to_thread(worker.request_cancellation, late.pop())
        await eventually(lambda: job_id in {notice.job_id for notice in seen}, "notice")
    listener.close()
    await asyncio.to_thread(worker.close)


class FailingPublisher(KombuPublisher):
    """Fails after it has published the next ``requests``, and in the next ``withdrawals``."""

    requests = withdrawals = 0
    passes_only = False  # whether a request that fails reaches the workers only

    def request_cancellation(self, request: CancelRequest) -> None:
        if request.takes_effect and self.requests:
            self.requests -= 1
            (self.pass_to_workers if self.passes_only else super().request_cancellation)(request)
            raise PublishFailed("no confirmation in time", ())
        super().request_cancellation(request)

    def withdraw_cancellation(self, request: CancelRequest) -> None:
        if self.withdrawals:
            self.withdrawals -= 1
            raise PublishFailed("no confirmation in time", ())
        super().withdraw_cancellation(request)


@asynccontextmanager
async def failing(
    url: str, names: Names, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[KombuSource, FailingPublisher]]:
    """Run a server process with a publisher whose requests fail."""
    monkeypatch.setattr(canceller, "FIRST_DELAY", 0.02)
    async with sources(url, names, 1) as (source,):
        publisher = FailingPublisher(url, prefix=names.prefix)
        publisher.requests = 1
        source._canceller._publisher = publisher
        yield source, publisher


@pytest.mark.parametrize("withdrawals", [0, 3], ids=["at once", "repeatedly"])
async def test_request_that_failed_for_its_client_is_withdrawn(
    rabbitmq: RabbitMQ, names: Names, monkeypatch: pytest.MonkeyPatch, withdrawals: int
) -> None:
    job_id, worker = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)
    worker.on_cancelled = fail
    async with failing(rabbitmq.url, names, monkeypatch) as (source, publisher):
        publisher.passes_only, publisher.withdrawals = True, withdrawals
        await asyncio.to_thread(worker.publish, [status(job_id, "queued", SENT)])
        with pytest.raises(PublishFailed):
            await source.cancel(Cancellation(job_id=job_id))
        await eventually(lambda: not source._canceller._withdrawing, "withdrawal")
        assert publisher.withdrawals == 0
        await asyncio.to_thread(worker.publish, [status(job_id, "started", RUN)])
        assert not await asyncio.to_thread(heard_at_start, rabbitmq.url, names, job_id)
        assert (await source.snapshot(job_id)).state == "started"
    await asyncio.to_thread(worker.close)


@pytest.mark.parametrize("limit", [0, 1], ids=["too many", "end of the process"])
async def test_request_that_is_not_withdrawn_is_logged(
    rabbitmq: RabbitMQ,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limit: int,
) -> None:
    monkeypatch.setattr(canceller, "MAX_WITHDRAWING", limit)
    job_id, worker = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)
    async with failing(rabbitmq.url, names, monkeypatch) as (source, publisher):
        publisher.passes_only, publisher.withdrawals = True, MANY
        await asyncio.to_thread(worker.publish, [status(job_id, "queued", SENT)])
        with pytest.raises(PublishFailed):
            await source.cancel(Cancellation(job_id=job_id))
        await eventually(lambda: "withdraw" in caplog.text, "failed withdrawal")
    assert f"job {job_id}: gave up withdrawing" in caplog.text
    assert ("trying again" in caplog.text) == bool(limit)
    await asyncio.to_thread(worker.close)


async def test_request_that_no_process_receives_fails_at_once_and_is_withdrawn(
    rabbitmq: RabbitMQ, names: Names
) -> None:
    """An operator deletes the exchange after the request has been passed to the workers."""

    class OperatedPublisher(KombuPublisher):
        def pass_to_workers(self, request: CancelRequest) -> None:
            super().pass_to_workers(request)
            on_admin_channel(rabbitmq, lambda channel: channel.exchange_delete(names.events))

    job_id, worker = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)
    async with sources(rabbitmq.url, names, 1) as (source,):
        await asyncio.to_thread(worker.publish, [status(job_id, "queued", SENT)])
        source._canceller._publisher = OperatedPublisher(rabbitmq.url, prefix=names.prefix)
        with pytest.raises(PublishFailed, match="no Socket"):
            await source.cancel(Cancellation(job_id=job_id))
        await eventually(lambda: not source._canceller._withdrawing, "withdrawal")
        await eventually(lambda: source.ready, "ready source")
        assert not await asyncio.to_thread(heard_at_start, rabbitmq.url, names, job_id)
        assert (await source.snapshot(job_id)).state == "queued"
    await asyncio.to_thread(worker.close)


async def test_request_that_takes_effect_after_its_withdrawal_is_in_force_again(
    rabbitmq: RabbitMQ, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker does not confirm the message in time, and delivers it later."""
    job_id, worker = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)
    late: list[bytes] = []

    async def is_cancelled() -> bool:
        return (await source.snapshot(job_id)).state == "cancelled"

    async with failing(rabbitmq.url, names, monkeypatch) as (source, _):
        await asyncio.to_thread(worker.publish, [status(job_id, "queued", SENT)])
        receive = source._canceller.receive
        assert source._consumer is not None
        monkeypatch.setattr(source._consumer, "_on_cancel", lambda body: hold(body))

        def hold(body: bytes) -> None:
            (late.append if CancelRequest.decode(body).takes_effect else receive)(body)

        with pytest.raises(PublishFailed):
            await source.cancel(Cancellation(job_id=job_id))
        await eventually(lambda: not source._canceller._withdrawing, "withdrawal")
        await eventually(lambda: late, "late message")
        receive(late.pop())
        assert await is_cancelled()
        await source._canceller._tasks.wait()
        heard = await asyncio.to_thread(heard_at_start, rabbitmq.url, names, job_id)
        assert heard == [job_id]
    await asyncio.to_thread(worker.close)


async def test_request_that_comes_back_is_answered_although_it_was_not_confirmed(
    rabbitmq: RabbitMQ, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, worker = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)

    async with failing(rabbitmq.url, names, monkeypatch) as (source, publisher):
        request_cancellation = publisher.request_cancellation

        def fail_late(request: CancelRequest) -> None:
            try:
                request_cancellation(request)
            except PublishFailed:
                wait_for(source._canceller._waiting[request.id].done, "answer")
                raise

        monkeypatch.setattr(publisher, "request_cancellation", fail_late)
        await asyncio.to_thread(worker.publish, [status(job_id, "queued", SENT)])
        assert (await source.cancel(Cancellation(job_id=job_id))).outcome == "cancelled"
        heard = await asyncio.to_thread(heard_at_start, rabbitmq.url, names, job_id)
        assert heard == [job_id]
    await asyncio.to_thread(worker.close)


async def test_request_goes_on_after_its_caller_is_cancelled(
    rabbitmq: RabbitMQ, names: Names
) -> None:
    job_id, worker = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)
    async with sources(rabbitmq.url, names, 1) as (source,):
        await asyncio.to_thread(worker.publish, [status(job_id, "queued", SENT)])
        calling = asyncio.create_task(source.cancel(Cancellation(job_id=job_id)))
        loop = asyncio.get_running_loop()
        source._canceller._publisher = InterruptingPublisher(
            rabbitmq.url, names, lambda _: loop.call_soon_threadsafe(calling.cancel)
        )
        with pytest.raises(asyncio.CancelledError):
            await calling
        await source._canceller._tasks.wait()
        assert (await source.snapshot(job_id)).state == "cancelled"
    await asyncio.to_thread(worker.close)


def fail(cancellation: Cancellation) -> None:
    raise AssertionError(f"heard of {cancellation}")


def test_requests_for_two_sendings_of_a_job_are_in_force(rabbitmq: RabbitMQ, names: Names) -> None:
    job_id = new_job_id()
    keep(rabbitmq.url, names, *(request(job_id, sending).encode() for sending in ("aa", "bb")))
    for sending in ("aa", "bb"):
        assert heard_at_start(rabbitmq.url, names, job_id, Run(sending, 1, "d1")) == [job_id]


async def test_kept_requests_survive_a_restart_of_the_broker(
    rabbitmq: RabbitMQ, names: Names
) -> None:
    job_id, publisher = new_job_id(), KombuPublisher(rabbitmq.url, prefix=names.prefix)
    async with sources(rabbitmq.url, names, 1) as (source,):
        await asyncio.to_thread(publisher.publish, [status(job_id, "queued", SENT)])
        assert (await source.cancel(Cancellation(job_id=job_id))).outcome == "cancelled"
    await asyncio.to_thread(publisher.close)
    rabbitmq.crash()
    rabbitmq.start()
    rabbitmq.ready()
    assert heard_at_start(rabbitmq.url, names, job_id) == [job_id]


def test_subscription_begins_with_the_kept_requests(rabbitmq: RabbitMQ, names: Names) -> None:
    """A worker receives messages whose jobs were cancelled before it started."""
    withdrawn, again, kept = request(new_job_id()), request(new_job_id()), request(new_job_id())
    bodies = withdrawn, withdrawn.withdrawal, again, again, kept
    keep(rabbitmq.url, names, *(each.encode() for each in bodies))
    heard = SimpleQueue[Cancellation]()
    publisher = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    listener = publisher.listen(heard.put)
    found = [heard.get(timeout=TIMEOUT) for _ in range(2)]
    assert [each.job_id for each in found] == [again.cancellation.job_id, kept.cancellation.job_id]
    assert {each.outcome for each in found} == {"kept"}
    # The server process withdraws a request after the worker has read it.
    publisher.pass_to_workers(withdrawn)
    publisher.withdraw_cancellation(kept)
    assert heard.get(timeout=TIMEOUT) == structs.replace(kept.cancellation, outcome="withdrawn")
    listener.close()
    publisher.close()
    assert heard.empty()


def test_subscription_reads_the_kept_requests_once_no_other_process_does(
    rabbitmq: RabbitMQ, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_channel, "LOCK_TRIES", 1)
    monkeypatch.setattr(control_channel, "POLL_INTERVAL", 0.1)
    job_id, heard = new_job_id(), SimpleQueue[Cancellation]()
    keep(rabbitmq.url, names, request(job_id).encode())
    publisher = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    notice = Cancellation(job_id=new_job_id(), sending="aa", outcome="requested")
    with Connection(rabbitmq.url) as reader:
        reader.channel().queue_declare(names.read_lock(names.cancellations), exclusive=True)
        listener = publisher.listen(heard.put)
        while heard.empty():  # the subscription begins in a thread
            publisher.announce_cancellation(notice)
        assert heard.get().job_id == notice.job_id
    while heard.get(timeout=TIMEOUT).job_id != job_id:
        pass
    listener.close()
    publisher.close()


def test_withdrawal_during_the_read_of_kept_requests_counts(
    rabbitmq: RabbitMQ, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that waits for an answer of the broker receives messages too."""
    heard, has_heard = SimpleQueue[Cancellation](), Event()
    publisher = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    withdrawn, still_kept = request(new_job_id()), request(new_job_id())
    keep(rabbitmq.url, names, withdrawn.encode(), still_kept.encode())

    class Requests(KnownRequests):
        def add_kept(self, broker: Connection, names: Names, tries: int) -> None:
            super().add_kept(broker, names, tries)
            publisher.withdraw_cancellation(withdrawn)
            while not has_heard.is_set():
                broker.drain_events(timeout=TIMEOUT)

    def hear(cancellation: Cancellation) -> None:
        heard.put(cancellation)
        has_heard.set()

    monkeypatch.setattr(control_channel, "KnownRequests", Requests)
    listener = publisher.listen(hear)
    found = [heard.get(timeout=TIMEOUT) for _ in range(2)]
    listener.close()
    publisher.close()
    assert [(each.job_id, each.outcome) for each in found] == [
        (withdrawn.cancellation.job_id, "withdrawn"),
        (still_kept.cancellation.job_id, "kept"),
    ]


def test_subscription_that_is_never_silent_stays(
    rabbitmq: RabbitMQ,
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The broker ends a connection that sends nothing for two intervals of the heartbeat."""
    monkeypatch.setattr(control_channel, "HEARTBEAT", 3.0)
    heard = SimpleQueue[Cancellation]()
    publisher = KombuPublisher(rabbitmq.url, prefix=names.prefix)
    listener = publisher.listen(heard.put)
    notice = Cancellation(job_id=new_job_id(), sending="aa", outcome="requested")
    begin = time.monotonic()
    while heard.empty():  # the subscription begins in a thread
        assert time.monotonic() < begin + TIMEOUT
        publisher.announce_cancellation(notice)
        with suppress(Empty):
            heard.put(heard.get(timeout=0.2))
    end = time.monotonic() + 12.0
    while time.monotonic() < end:
        publisher.announce_cancellation(notice)
        heard.get(timeout=TIMEOUT)
        time.sleep(0.2)
    listener.close()
    publisher.close()
    assert "lost the subscription" not in caplog.text


def test_waiting_for_the_other_readers_uses_one_channel(rabbitmq: RabbitMQ, names: Names) -> None:
    lock = names.read_lock(names.cancellations)
    with Connection(rabbitmq.url) as reader, Connection(rabbitmq.url) as waiting:
        reader.channel().queue_declare(lock, exclusive=True)
        before = len(waiting.connection.channels)
        with pytest.raises(KombuError, match=lock):
            read_kept(waiting, names.kept_requests(), lock, CancelRequest.decode, tries=3)
        assert len(waiting.connection.channels) == before


class OwnQueue:
    """A channel to a queue."""

    def __init__(self, broker: Connection, name: str) -> None:
        self.name = name
        self._channel: Any = broker.channel()
        self._channel.queue_declare(name, exclusive=True, auto_delete=False)
        self.arrived = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def add(self) -> None:
        self.arrived += 1
        body = str(self.arrived).encode()
        self._channel.basic_publish_confirm(BasicMessage(body), routing_key=self.name)


class BusyQueue(OwnQueue):
    """Another message arrives before each count of the messages."""

    def queue_declare(self, *args: Any, **options: Any) -> Any:
        assert self.arrived < MANY_ARRIVALS, "the reader does not end"
        self.add()
        return self._channel.queue_declare(*args, **options)


class ExpiringQueue(OwnQueue):
    """The first messages expire after they were counted."""

    has_expired = False

    def basic_consume(self, *args: Any, **options: Any) -> Any:
        if not self.has_expired:
            self._channel.queue_purge(self.name)
            self.has_expired = True
        return self._channel.basic_consume(*args, **options)


@pytest.mark.parametrize("no_ack", [False, True], ids=["kept", "inbox"])
def test_reader_ends_while_messages_keep_arriving(rabbitmq: RabbitMQ, *, no_ack: bool) -> None:
    with Connection(rabbitmq.url) as broker:
        queue = BusyQueue(broker, new_id("queue"))
        queue.add()
        queue.add()
        messages = receive_all(queue, queue.name, no_ack=no_ack)
        bodies = [int(message.body) for message in messages]
        assert bodies[:3] == [1, 2, 3]
        assert bodies == list(range(1, len(bodies) + 1))


def test_reader_does_not_wait_for_messages_that_have_expired(rabbitmq: RabbitMQ) -> None:
    with Connection(rabbitmq.url) as broker:
        queue = ExpiringQueue(broker, new_id("queue"))
        for _ in range(3):
            queue.add()
        assert [message.body for message in receive_all(queue, queue.name)] == []
        queue.add()
        assert [message.body for message in receive_all(queue, queue.name)] == [b"4"]
