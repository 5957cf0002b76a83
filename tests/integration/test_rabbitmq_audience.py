"""Processes that start to consume while events are published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kombu.entity import Exchange

from jobcast.errors import PublishFailed
from jobcast.testing import log, new_job_id
from jobcast.transports import Outgoing
from jobcast.transports.amqp.publisher import KombuPublisher
from jobcast.transports.amqp.source import KombuClientManager
from tests.support import TIMEOUT, eventually, wait_for
from tests.support.rabbitmq import RabbitMQ


class InterruptedPublisher(KombuPublisher):
    """Calls a function after the broker has confirmed the first message."""

    def __init__(self, url: str, interrupt: Callable[[], None]) -> None:
        super().__init__(url)
        self._interrupt: Callable[[], None] | None = interrupt

    def _publish_confirmed(
        self, exchange: Exchange, bodies: Iterable[bytes], *args: Any, **properties: Any
    ) -> None:
        super()._publish_confirmed(exchange, self._interrupted(bodies), *args, **properties)

    def _interrupted(self, bodies: Iterable[bytes]) -> Iterator[bytes]:
        for body in bodies:
            yield body
            self._wait_for_confirmation()
            interrupt, self._interrupt = self._interrupt, None
            if interrupt is not None:
                interrupt()


async def test_process_that_starts_during_a_batch_receives_all_of_it(
    rabbitmq: RabbitMQ,
) -> None:
    job_id = new_job_id()
    manager = KombuClientManager(rabbitmq.url)
    loop = asyncio.get_running_loop()

    async def resumed() -> None:
        """Do nothing: the job has no follower in this test."""

    async def start_source() -> None:
        manager.source.start(lambda *_: None, resumed)
        await eventually(lambda: manager.source.ready, "source that is ready")

    publisher = InterruptedPublisher(
        rabbitmq.url,
        lambda: asyncio.run_coroutine_threadsafe(start_source(), loop).result(TIMEOUT),
    )
    batch = [Outgoing.of(log(job_id, f"line {number}"), number=number) for number in range(1, 6)]

    def is_published() -> bool:
        try:
            publisher.publish(batch)
        except PublishFailed:
            return False
        return True

    await asyncio.to_thread(wait_for, is_published, "published batch")
    await eventually(lambda: manager.source._records.position(job_id).seq == len(batch), "events")
    publisher.close()
    await manager.aclose()
