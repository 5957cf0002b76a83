"""A publisher of a job over RabbitMQ, and a relay with a follower of the job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from amqp.basic_message import Message
from amqp.exceptions import NotFound
from kombu.connection import Connection

from jobcast.publishing.job import Job
from jobcast.publishing.publisher import Publisher
from jobcast.realtime.relay import Relay
from jobcast.testing import new_job_id
from jobcast.transports import Origin, Retention, Run, open_publisher
from jobcast.transports.amqp.codec import CANARY, NO_BODY
from jobcast.transports.amqp.consumer import Consumer
from jobcast.transports.amqp.source import KombuClientManager
from tests.support import TIMEOUT, StubRuntime, eventually
from tests.support.rabbitmq import RabbitMQ
from tests.support.recorder import Recorder

LEASE = 6.0  # seconds
MAX_LINES = 10_000


class Pipeline:
    """A job with its publisher, and a relay with one follower of the job."""

    def __init__(self, url: str) -> None:
        self.manager = KombuClientManager(url, retention=Retention(size=MAX_LINES))
        self.source = self.manager.source
        self.relay = Relay(self.source)
        self.publisher = Publisher(open_publisher(url), shown_url="the broker", lease=LEASE)
        self.job = Job(
            StubRuntime(self.publisher), new_job_id(), origin=Origin(run=Run("aa", 1, "d1"))
        )
        self.follower = Recorder("1")
        self.published = 0

    def publish_lines(self, lines: int) -> None:
        for _ in range(lines):
            self.job.log(str(self.published))
            self.published += 1

    async def wait_received(self) -> None:
        """Wait until the follower has the latest line."""
        latest = str(self.published - 1)
        await eventually(lambda: latest in self.follower.lines, f"line {latest}")

    def has_all(self) -> bool:
        return self.lines == [str(n) for n in range(self.published)] and self.relay.ready

    @property
    def consumer(self) -> Consumer:
        assert self.source._consumer is not None
        return self.source._consumer

    @property
    def queue(self) -> str:
        """The name of the queue for events."""
        name: str = self.consumer._events_queue.name
        return name

    @property
    def lines(self) -> list[object]:
        """The log lines that the follower has received since the latest `joined`."""
        names = self.follower.names
        begin = len(names) - names[::-1].index("joined")
        events = self.follower.events[begin:]
        return [payload["message"] for name, payload in events if name == "job_log"]


@asynccontextmanager
async def open_pipeline(url: str) -> AsyncIterator[Pipeline]:
    pipe = Pipeline(url)
    pipe.relay.start()
    try:
        await eventually(lambda: pipe.relay.ready, "relay that is ready")
        await pipe.relay.join(pipe.job.job_id, pipe.follower)
        pipe.job.started()
        pipe.publish_lines(1)
        await pipe.wait_received()
        yield pipe
    finally:
        await asyncio.to_thread(pipe.publisher.close)
        await pipe.relay.aclose()
        await pipe.manager.aclose()


@contextmanager
def held(pipe: Pipeline) -> Iterator[None]:
    """Stop the thread that receives from the broker, as a busy machine does."""
    is_held, is_released, consumer = threading.Event(), threading.Event(), pipe.consumer
    drain = consumer._drain

    def drain_later(broker: Connection) -> None:
        is_held.set()
        is_released.wait()
        drain(broker)

    consumer._drain = drain_later  # type: ignore[method-assign]
    assert is_held.wait(TIMEOUT)
    try:
        yield
    finally:
        consumer._drain = drain  # type: ignore[method-assign]
        is_released.set()


def is_routed(rabbitmq: RabbitMQ, exchange: str, key: str = "") -> bool:
    """Return whether a message to an exchange would reach a queue."""
    returned: list[object] = []
    with Connection(rabbitmq.url) as other:
        channel: Any = other.channel()
        channel.events["basic_return"].add(lambda *answer: returned.append(answer))
        try:
            channel.basic_publish_confirm(
                Message(NO_BODY, type=CANARY), exchange, key, mandatory=True
            )
        except NotFound:
            return False
    return not returned


def on_admin_channel(rabbitmq: RabbitMQ, action: Callable[[Any], object]) -> None:
    """Run an action on a separate channel, as an operator would."""
    with Connection(rabbitmq.url) as other:
        action(other.channel())
