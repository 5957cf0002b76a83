"""Revoked tokens that RabbitMQ keeps, and a broker that delivers them slowly."""

from __future__ import annotations

import asyncio
import time

import pytest
from kombu.connection import Connection

from jobcast.transports.amqp.names import Names
from jobcast.transports.amqp.revocations import read_revocations
from jobcast.transports.revocations import Revocation
from tests.support import TIMEOUT, eventually, new_id
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQ

KEPT = 500  # revocations
HELD_AFTER = 40_000  # bytes from the broker, which are some of the revocations
PAUSE = 0.5  # seconds; below the timeout of an answer


def keep(url: str, names: Names, revoked: list[Revocation]) -> None:
    with Connection(url) as broker:
        names.kept_revocations()(broker.channel()).declare()
        producer = broker.Producer(exchange=names.revocations_exchange())
        for revocation in revoked:
            producer.publish(revocation.encode(), delivery_mode=2)


async def test_pause_of_the_broker_hides_no_revocation(rabbitmq: RabbitMQ) -> None:
    names, until = Names(new_id("prefix")), time.time() + 600
    revoked = [Revocation(jti=f"token-{number}", until=until) for number in range(KEPT)]
    await asyncio.to_thread(keep, rabbitmq.url, names, revoked)
    proxy = Proxy(hold_after=HELD_AFTER)
    proxy.target = rabbitmq.port
    await proxy.start()
    url = rabbitmq.url.replace(str(rabbitmq.port), str(proxy.port))
    reading = asyncio.create_task(asyncio.to_thread(read_revocations, url, names))
    await eventually(lambda: proxy.links, "connection through the proxy")
    [link] = proxy.links
    await asyncio.wait_for(link.held.wait(), TIMEOUT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading), PAUSE)
    link.resume()
    assert await reading == revoked
    await proxy.aclose()
