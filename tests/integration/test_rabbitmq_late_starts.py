"""Runs that start between the two messages of a request to cancel their job over RabbitMQ."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobcast.events import JobStatus
from jobcast.testing import new_job_id
from jobcast.transports import Message, Origin, Outgoing, Run
from jobcast.transports.amqp.codec import CANCEL
from jobcast.transports.amqp.names import REQUEST_KEY
from jobcast.transports.amqp.publisher import KombuPublisher
from jobcast.transports.amqp.source import KombuSource
from jobcast.transports.cancellation import CancelAnswer, Cancellation
from tests.support import eventually, new_id
from tests.support.rabbitmq import RabbitMQ

SENT, RUN = Run("aaaaaaaaaaaa"), Run("aaaaaaaaaaaa", 1, "d1")


async def test_a_request_that_a_run_receives_at_its_start_is_not_refused(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender of the job does not know that its task is not cancellable."""
    prefix, job_id = new_id("prefix"), new_job_id()
    heard: list[str] = []
    worker = KombuPublisher(rabbitmq.url, prefix=prefix)
    source = KombuSource(rabbitmq.url, prefix=prefix)
    worker.on_cancelled = lambda request: heard.append(request.job_id)
    queued = JobStatus(job_id=job_id, status="queued")
    started = JobStatus(job_id=job_id, status="started", attempt=1, cancellable=False)
    passed: list[str] = []

    def start_in_between(self: KombuPublisher, entity: Any, *args: Any, **properties: Any) -> None:
        if passed and properties.get("type") == CANCEL:
            passed.clear()
            worker.publish([Outgoing.of(started, Origin(run=RUN))])
        send(self, entity, *args, **properties)
        if properties.get("routing_key") == REQUEST_KEY:
            passed.append(job_id)

    def receive(job_id: str, message: Message) -> None:
        del job_id, message

    async def resumed() -> None: ...

    send = KombuPublisher._send_control
    monkeypatch.setattr(KombuPublisher, "_send_control", start_in_between)
    try:
        source.start(receive, resumed)
        await eventually(lambda: source.ready, "ready source")
        await asyncio.to_thread(worker.publish, [Outgoing.of(queued, Origin(run=SENT))])
        answer = await source.cancel(Cancellation(job_id=job_id, by="alice"))
        assert heard == [job_id]
        assert answer == CancelAnswer(outcome="requested")
        assert (await source.snapshot(job_id)).state == "cancelling"
    finally:
        await source.aclose()
        worker.close()
