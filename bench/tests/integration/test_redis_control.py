"""Failovers and recordings of published jobs work as a soak expects."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry

from bench.soak.failover import Failovers
from bench.soak.redis_writes import PublishedJobs, writes_paused
from jobcast.events import JobLog
from jobcast.transports import Outgoing, open_publisher
from jobcast.transports.base import TransportPublisher
from jobcast.transports.redis.names import Keys
from tests.support import TIMEOUT, running, wait_for
from tests.support.redis_family import RedisProcess, Sentinels


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[RedisProcess]:
    with running(RedisProcess(tmp_path)) as server:
        yield server.ready()


@pytest.fixture
def publisher(valkey: RedisProcess) -> Iterator[TransportPublisher]:
    publisher = open_publisher(valkey.url)
    yield publisher
    publisher.close()


def line_of(job_id: str) -> Outgoing:
    return Outgoing.of(JobLog(job_id=job_id, level="info", message="line"))


def test_published_jobs_are_recorded(valkey: RedisProcess, publisher: TransportPublisher) -> None:
    publisher.publish([line_of("before")])
    with PublishedJobs(valkey) as published:
        publisher.publish([line_of("one"), line_of("two")])
        publisher.publish([line_of("one")])
        assert published.so_far() == {"one", "two"}
    publisher.publish([line_of("after")])


def test_paused_writes_run_afterwards(valkey: RedisProcess, publisher: TransportPublisher) -> None:
    with PublishedJobs(valkey) as published, ThreadPoolExecutor(1) as pool:
        with writes_paused(valkey):
            publishing = pool.submit(publisher.publish, [line_of("one")])
            wait_for(lambda: blocked_clients(valkey), "blocked write")
            assert published.so_far() == set()
        publishing.result(TIMEOUT)
        assert published.so_far() == {"one"}


def blocked_clients(server: RedisProcess) -> int:
    number: int = server.command("INFO", "clients")["blocked_clients"]
    return number


@pytest.fixture
def failovers(tmp_path: Path) -> Iterator[Failovers]:
    servers = Sentinels(tmp_path / "sentinels")
    try:
        failovers = Failovers(servers)
        failovers.ready()
        yield failovers
    finally:
        servers.kill()


def test_successor_of_a_killed_master_has_every_confirmed_write(failovers: Failovers) -> None:
    former, ended = failovers.master, Event()

    def write() -> int:
        written = 0
        # The former master may return as a replica before this client notices its end.
        disconnected = suppress(redis.ConnectionError, redis.ReadOnlyError)
        client = redis.Redis(port=former.port, socket_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0))
        with client, disconnected:
            while not ended.is_set():
                client.incr("written")
                written += 1
        return written

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            wait_for(lambda: former.command("GET", "written"), "first write")
            failovers.kill_master()
        finally:
            ended.set()
        confirmed = writing.result(TIMEOUT)
    assert failovers.master is not former
    assert int(failovers.master.command("GET", "written")) == confirmed


def test_writes_of_a_resumed_master_are_recorded(failovers: Failovers) -> None:
    former = failovers.master
    process = psutil.Process(former.popen.pid)
    connection = Connection(port=former.port)
    connection.connect()
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(failovers.stop_master, 0)
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED, "stopped master")
        connection.send_command("PUBLISH", Keys.of("one").channel, "an event")
        assert stopping.result(TIMEOUT) == {"one"}
    connection.disconnect()
    assert failovers.master is not former
