"""Records that are restored from an older copy, or taken over by a lagging server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from jobcast.realtime.relay import Relay
from jobcast.testing import log, new_job_id, started
from jobcast.transports import Outgoing, open_manager, open_publisher
from jobcast.transports.redis.names import Keys
from jobcast.transports.redis.publisher import RedisPublisher
from tests.conftest import Valkey
from tests.support import eventually
from tests.support.recorder import Recorder

MAX_SAFE_INTEGER = 2**53 - 1  # of JavaScript


class Copies:
    """Copies and restores a job's record, as a server snapshot does."""

    def __init__(self, url: str, job_id: str) -> None:
        self._client: Any = Redis.from_url(url)
        self._keys = Keys.of(job_id).state, Keys.of(job_id).lines

    def take(self) -> list[bytes]:
        return [self._client.dump(key) for key in self._keys]

    def restore(self, copy: list[bytes]) -> None:
        for key, dumped in zip(self._keys, copy, strict=True):
            self._client.restore(key, 0, dumped, replace=True)

    def set(self, **fields: str) -> None:
        self._client.hset(self._keys[0], mapping=fields)

    def seqs(self) -> list[int]:
        return [int(entry.split(b"-")[0]) for entry, _ in self._client.xrange(self._keys[1])]

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def job_id() -> str:
    return new_job_id()


@pytest.fixture
def copies(valkey: Valkey, job_id: str) -> Iterator[Copies]:
    copies = Copies(valkey.url, job_id)
    yield copies
    copies.close()


def publish(publisher: RedisPublisher, job_id: str, *lines: str) -> None:
    publisher.publish([Outgoing.of(log(job_id, line)) for line in lines])


async def test_followers_receive_events_after_a_record_was_restored(
    valkey: Valkey, copies: Copies, job_id: str
) -> None:
    manager = open_manager(valkey.url)
    relay, follower = Relay(manager.source), Recorder("1")
    publisher = open_publisher(valkey.url)
    assert isinstance(publisher, RedisPublisher)
    relay.start()
    await eventually(lambda: relay.ready, "relay that is ready")
    await relay.join(job_id, follower)
    publisher.publish([Outgoing.of(started(job_id))])
    publish(publisher, job_id, "a", "b")
    older = copies.take()
    publish(publisher, job_id, "c", "d")
    await eventually(lambda: follower.lines == ["a", "b", "c", "d"], "lines before the restore")
    copies.restore(older)
    publish(publisher, job_id, "e", "f")
    await eventually(lambda: len(follower.lines) >= 6, "lines after the restore")
    assert follower.lines == ["a", "b", "c", "d", "e", "f"]
    assert follower.seqs == sorted(set(follower.seqs))
    publisher.close()
    await relay.aclose()
    await manager.aclose()


def test_each_failover_assigns_different_seqs(valkey: Valkey, copies: Copies, job_id: str) -> None:
    """The second new master has no data of the first one, which fails too."""
    publishers = [open_publisher(valkey.url) for _ in range(3)]
    first, *others = publishers
    first.publish([Outgoing.of(log(job_id, line)) for line in "abc"])
    copies.set(node="gone")  # the copy of a former master
    copy = copies.take()
    seqs = []
    for other in others:
        copies.restore(copy)
        other.publish([Outgoing.of(log(job_id, line)) for line in "de"])
        seqs += copies.seqs()[3:]
    assert seqs == sorted(set(seqs))
    assert len(seqs) == 4
    assert seqs[-1] <= MAX_SAFE_INTEGER
    entries: Any = copies._client.xrange(copies._keys[1])
    packets = [fields[b"p"].removeprefix(b"42") for _, fields in entries]
    assert [json.loads(packet)[1]["seq"] for packet in packets] == copies.seqs()
    for publisher in publishers:
        publisher.close()
