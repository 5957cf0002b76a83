"""Faults of Redis and of the network, and how the publisher and the relay survive them."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from jobcast.errors import TransportUnavailable
from jobcast.events import NO_INFO, Cursor
from jobcast.publishing.job import Job
from jobcast.publishing.publisher import Publisher
from jobcast.realtime import metrics
from jobcast.realtime.relay import Relay
from jobcast.testing import log, new_job_id, progress, started
from jobcast.transports import Origin, Outgoing, Retention, Run, open_manager, open_publisher
from jobcast.transports.base import ClientManager
from jobcast.transports.redis.names import Keys, Names
from jobcast.transports.redis.publisher import RedisPublisher
from jobcast.transports.redis.source import RedisSource
from tests.conftest import Valkey
from tests.support import TIMEOUT, StubRuntime, eventually, running
from tests.support.proxy import Proxy
from tests.support.recorder import Recorder
from tests.support.redis_family import Cluster, RedisProcess, Sentinels
from tests.support.redis_family import started as started_servers
from tests.support.refusals import BUSY, MISCONF, NOREPLICAS, OOM, refusing


class Pipeline:
    """A job with its publisher, and a relay with one follower of the job."""

    def __init__(self, relay: Relay, publisher: Publisher) -> None:
        self.relay = relay
        self.publisher = publisher
        self.job = Job(StubRuntime(publisher), new_job_id())
        self.follower = Recorder("1")
        self.published = 0

    def publish_lines(self, lines: int) -> None:
        for _ in range(lines):
            self.job.log(str(self.published))
            self.job.progress(self.published)
            self.published += 1

    async def wait_received(self) -> None:
        """Wait until the follower has each line once and in order."""
        expected = [str(n) for n in range(self.published)]
        await eventually(
            lambda: len(self.follower.lines) >= self.published, f"{self.published} lines"
        )
        assert self.follower.lines == expected

    async def wait_stored(self) -> None:
        """Wait until the store has confirmed every event."""
        deadline = time.monotonic() + TIMEOUT
        while not await asyncio.to_thread(self.publisher.flush, 1):
            assert time.monotonic() < deadline, "some events were not confirmed"
            await asyncio.sleep(0.02)

    def assert_in_order(self) -> None:
        assert self.follower.seqs == sorted(set(self.follower.seqs))


@asynccontextmanager
async def open_pipeline(
    url: str, worker_url: str | None = None, retention: Retention | None = None
) -> AsyncIterator[Pipeline]:
    """Yield a pipeline whose follower has joined and received one line."""
    manager = open_manager(url)
    relay = Relay(manager.source)
    relay.start()
    publisher = Publisher(open_publisher(worker_url or url, retention), shown_url="the store")
    pipe = Pipeline(relay, publisher)
    try:
        await eventually(lambda: relay.ready, "relay that is ready")
        await relay.join(pipe.job.job_id, pipe.follower)
        pipe.publish_lines(1)
        await pipe.wait_received()
        yield pipe
    finally:
        await asyncio.to_thread(publisher.close)
        await relay.aclose()
        await manager.aclose()


def _has_disconnected_slow_client(server: Valkey) -> bool:
    return bool(server.command("INFO", "stats")["client_output_buffer_limit_disconnections"])


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_repeatedly_killed_connections_lose_no_events(own_valkey: Valkey, kind: str) -> None:
    async with open_pipeline(own_valkey.url) as pipe:
        for _ in range(10):
            pipe.publish_lines(20)
            await asyncio.to_thread(own_valkey.command, "CLIENT", "KILL", "TYPE", kind)
            await asyncio.sleep(0.02)  # publish more while they reconnect
        await pipe.wait_received()
        pipe.assert_in_order()


@pytest.mark.parametrize("kind", [RedisProcess, Sentinels])
async def test_connection_cut_while_idle_causes_no_refusal(
    kind: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A restart, a proxy or Redis's ``timeout`` closes idle connections; the store still works."""
    with started_servers(kind(tmp_path_factory.mktemp("servers"))) as servers:
        manager = open_manager(servers.url)
        master = servers if isinstance(servers, RedisProcess) else servers.master
        for _ in range(3):
            assert (await manager.source.snapshot("42")).state == "pending"
            assert await manager.source.info("42") == NO_INFO
            await asyncio.to_thread(master.command, "CLIENT", "KILL", "TYPE", "normal")
        await manager.aclose()


async def test_subscriber_disconnected_as_slow_consumer_catches_up(own_valkey: Valkey) -> None:
    own_valkey.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 64kb 1")
    async with open_pipeline(own_valkey.url) as pipe:
        line = "x" * 8000
        publisher = open_publisher(own_valkey.url, Retention(size=100_000))
        lines: list[str] = []
        # Publishing blocks the loop, so the subscriber does not read from Redis.
        while not _has_disconnected_slow_client(own_valkey):
            more = [f"{line}{len(lines) + n}" for n in range(50)]
            publisher.publish([Outgoing.of(log(pipe.job.job_id, text)) for text in more])
            lines += more
            assert len(lines) < 20_000
        await eventually(lambda: len(pipe.follower.lines) == len(lines) + 1, "the lines")
        assert pipe.follower.lines[1:] == lines
        pipe.assert_in_order()
        publisher.close()


async def test_restart_without_persistence_begins_another_epoch(own_valkey: Valkey) -> None:
    async with open_pipeline(own_valkey.url) as pipe:
        pipe.publish_lines(5)
        await pipe.wait_received()
        own_valkey.kill()
        await eventually(lambda: not pipe.relay.ready, "relay that is not ready")
        pipe.publish_lines(5)
        own_valkey.start()
        await pipe.wait_received()
        joined = [payload for name, payload in pipe.follower.events if name == "joined"]
        # The first `joined` has an empty epoch.
        assert len({payload["epoch"] for payload in joined}) == 3
        assert pipe.relay.ready
        last = pipe.follower.events[-1][1]
        snapshot = await pipe.relay._source.snapshot(pipe.job.job_id)
        assert (snapshot.epoch, snapshot.seq) == (joined[-1]["epoch"], last["seq"])


async def test_restart_with_persistence_keeps_the_epoch(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("durable")
    options = ["--appendonly", "yes", "--appendfsync", "always"]
    with running(RedisProcess(folder, *options)) as server:
        server.ready()
        async with open_pipeline(server.url) as pipe:
            for _ in range(3):
                pipe.publish_lines(20)
                server.kill()
                pipe.publish_lines(20)
                server.start()
                server.ready()
            await pipe.wait_received()
            pipe.assert_in_order()
            assert pipe.follower.names.count("joined") == 2  # the first one has an empty epoch


async def test_store_restored_from_an_older_dump_reuses_no_seq(
    own_valkey: Valkey,
) -> None:
    """The store restarts with older data, as a lagging replica does after a failover."""
    async with open_pipeline(own_valkey.url) as pipe:
        dump = own_valkey.folder / "dump.rdb"
        own_valkey.command("SAVE")
        shutil.copy(dump, dump.with_suffix(".old"))
        pipe.publish_lines(30)
        await pipe.wait_received()
        seen = pipe.follower.seqs[-1]
        epoch = pipe.follower.events[0][1]["epoch"]
        own_valkey.kill()
        shutil.copy(dump.with_suffix(".old"), dump)
        own_valkey.start()
        own_valkey.ready()
        pipe.publish_lines(10)
        await pipe.wait_received()
        pipe.assert_in_order()
        assert pipe.follower.seqs[-1] > seen + 900_000
        late = Recorder("2")
        after = Cursor(epoch=pipe.follower.events[-1][1].get("epoch", epoch), seq=seen)
        await pipe.relay.join(pipe.job.job_id, late, after)
        # The store cannot send lost events; it sends the others once.
        assert set(late.lines) <= {str(n) for n in range(pipe.published)}
        assert late.lines[-10:] == [str(n) for n in range(31, 41)]


async def test_deployments_on_two_databases_of_one_server_cause_no_rereads(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Pub/sub channels are shared by all databases of a server."""
    async with open_pipeline(own_valkey.url) as pipe:
        other = open_publisher(own_valkey.url.removesuffix("/0") + "/1")
        reads = _reads(own_valkey)
        for n in range(200):
            event = Outgoing.of(log(pipe.job.job_id, "of the other deployment"))
            await asyncio.to_thread(other.publish, [event])
            if n % 10 == 0:
                pipe.publish_lines(1)
                await pipe.wait_received()
        assert _reads(own_valkey) - reads < 20
        assert not pipe.relay._rooms[pipe.job.job_id].behind
        assert caplog.text.count("JOBCAST_PREFIX") == 1
        other.close()


def _reads(server: Valkey) -> int:
    calls: int = server.command("INFO", "commandstats")["cmdstat_xrange"]["calls"]
    return calls


async def test_record_restored_from_an_older_copy_is_replayed(
    own_valkey: Valkey,
) -> None:
    """The server is the same one, so it assigns the same seqs again."""
    async with open_pipeline(own_valkey.url) as pipe:
        pipe.publish_lines(5)
        await pipe.wait_received()
        await pipe.wait_stored()
        keys = Keys.of(pipe.job.job_id)
        copies = {key: own_valkey.command("DUMP", key) for key in (keys.state, keys.lines)}
        pipe.publish_lines(5)
        await pipe.wait_received()
        await pipe.wait_stored()
        for key, copied in copies.items():
            own_valkey.command("RESTORE", key, 0, copied, "REPLACE")
        await asyncio.to_thread(own_valkey.command, "CLIENT", "KILL", "TYPE", "pubsub")
        kept = [str(n) for n in range(6)]
        await eventually(lambda: pipe.follower.lines[11:] == kept, "restored record")
        # A late join sees the same record as the existing follower.
        late = Recorder("2")
        await pipe.relay.join(pipe.job.job_id, late)
        assert late.lines == kept


async def test_cursor_is_not_recovered_after_the_lines_were_evicted(own_valkey: Valkey) -> None:
    async with open_pipeline(own_valkey.url) as pipe:
        pipe.publish_lines(10)
        await pipe.wait_received()
        await pipe.wait_stored()
        second = Recorder("2")
        accepted = await pipe.relay.join(pipe.job.job_id, second)
        evicted = second.seqs[-2]  # the latest line; the progress is in the record
        own_valkey.command("DEL", Keys.of(pipe.job.job_id).lines)
        after = Cursor(epoch=accepted.epoch, seq=5)
        third = Recorder("3")
        again = await pipe.relay.join(pipe.job.job_id, third, after)
        assert again.recovered is False
        assert again.epoch == accepted.epoch
        assert third.names == ["joined", "job_gap", "job_progress"]
        assert third.gaps == [(5, evicted + 1)]
        # A follower that had seen every event has missed nothing.
        pipe.publish_lines(1)
        await pipe.wait_received()
        await pipe.wait_stored()
        after = Cursor(epoch=accepted.epoch, seq=accepted.seq)
        fourth = Recorder("4")
        assert (await pipe.relay.join(pipe.job.job_id, fourth, after)).recovered
        assert fourth.names == ["joined", "job_log", "job_progress"]
        late = Recorder("5")
        await pipe.relay.join(pipe.job.job_id, late)
        assert late.names == ["joined", "job_gap", "job_log", "job_progress"]
        assert late.gaps == [(0, evicted + 1)]


async def test_silently_dead_connection_is_detected(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall drops an idle connection without notifying either end."""
    monkeypatch.setattr("jobcast.transports.redis.subscriber.PING_INTERVAL", 1.5)
    proxy = Proxy()
    await proxy.start()
    proxy.target = own_valkey.port
    async with open_pipeline(f"redis://127.0.0.1:{proxy.port}/0", own_valkey.url) as pipe:
        for link in proxy.links:
            link.hold()
        pipe.publish_lines(20)
        await pipe.wait_received()
        pipe.assert_in_order()
    await proxy.aclose()


async def test_canary_detects_lost_subscriptions(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is up and answers pings, but delivers no messages."""
    async with open_pipeline(own_valkey.url) as pipe:
        source = pipe.relay._source
        assert isinstance(source, RedisSource)
        for _ in range(3):
            [subscriber] = source._subscribers
            await subscriber._send(("UNSUBSCRIBE",))
            pipe.publish_lines(1)
            await pipe.wait_received()
        pipe.assert_in_order()
    assert "does not receive messages" in caplog.text


async def test_each_master_of_a_cluster_has_a_canary(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with started_servers(Cluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        async with open_pipeline(cluster.url) as pipe:
            source = pipe.relay._source
            assert isinstance(source, RedisSource)
            assert len(set(source._canaries.values())) == len(cluster.nodes)
            subscriber = source._subscriber_for(Keys.of(pipe.job.job_id).channel)
            await subscriber._send(("SUNSUBSCRIBE",))
            pipe.publish_lines(1)
            await pipe.wait_received()


async def test_process_that_receives_nothing_reports_why_it_is_not_ready(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.transports.canary.SILENCE", 3.0)
    async with open_pipeline(own_valkey.url) as pipe:
        own_valkey.command("ACL", "SETUSER", "default", "-publish")
        await eventually(lambda: "no permissions" in pipe.relay.problem, "unready process")
        assert "has arrived for" in pipe.relay.problem
        await eventually(lambda: metrics.CANARY_AGE._value.get() > 3.0, "age")
        own_valkey.command("ACL", "SETUSER", "default", "+publish")
        await eventually(lambda: pipe.relay.ready, "ready process")


async def test_silent_channel_stays_subscribed(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A loaded machine can still answer in this time.
    monkeypatch.setattr("jobcast.transports.redis.subscriber.PING_INTERVAL", 3.0)
    monkeypatch.setattr("jobcast.transports.canary.INTERVAL", 3600.0)  # canaries break the silence
    async with open_pipeline(own_valkey.url) as pipe:
        before = _subscribers(own_valkey)
        await eventually(lambda: _pings(own_valkey) >= 2, "2 pings")
        pipe.publish_lines(1)
        await pipe.wait_received()
        assert _subscribers(own_valkey) == before


def _subscribers(server: Valkey) -> list[str]:
    lines = server.command("CLIENT", "LIST", "TYPE", "pubsub").decode().splitlines()
    return [line.partition(" ")[0] for line in lines]


def _pings(server: Valkey) -> int:
    return int(server.command("INFO", "commandstats").get("cmdstat_ping", {}).get("calls", 0))


async def test_lost_reply_does_not_duplicate_events(
    own_valkey: Valkey,
) -> None:
    proxy = Proxy()
    await proxy.start()
    proxy.target = own_valkey.port
    through_proxy, without_feeds = f"redis://127.0.0.1:{proxy.port}/0", Retention(feed_size=0)
    async with open_pipeline(own_valkey.url, through_proxy, without_feeds) as pipe:
        for _ in range(10):
            await pipe.wait_stored()
            [link] = proxy.links
            link.drop_answers()
            pipe.publish_lines(20)
            await link.closed.wait()
            # The events are stored, but the publisher has no reply.
            await eventually(lambda: len(pipe.follower.lines) > pipe.published - 20, "lines")
        await pipe.wait_received()
        pipe.assert_in_order()
        await pipe.wait_stored()
        snapshot = await pipe.relay._source.snapshot(pipe.job.job_id)
        assert len([m for m in snapshot.events if m.kind == "l"]) == pipe.published
    await proxy.aclose()


async def test_hanging_server_does_not_block_the_job(own_valkey: Valkey) -> None:
    async with open_pipeline(own_valkey.url) as pipe:
        own_valkey.popen.send_signal(signal.SIGSTOP)
        try:
            pipe.publish_lines(1)
            began = time.thread_time()
            pipe.publish_lines(200)
            assert time.thread_time() - began < 1.0  # seconds of CPU time
        finally:
            own_valkey.popen.send_signal(signal.SIGCONT)
        await pipe.wait_received()


@pytest.mark.parametrize("code", [MISCONF, NOREPLICAS, BUSY, OOM])
async def test_refused_writes_are_an_outage_that_drops_no_events(
    own_valkey: Valkey, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pipeline(own_valkey.url) as pipe:
        await pipe.wait_stored()
        with refusing(own_valkey, code):
            pipe.publish_lines(20)
            await eventually(lambda: "cannot reach the store" in caplog.text, "warning")
            pipe.publish_lines(20)
        await pipe.wait_received()
        pipe.assert_in_order()
        await pipe.wait_stored()
    assert caplog.text.count("cannot reach the store") == 1
    assert "dropped" not in caplog.text


async def test_missing_rights_inside_the_script_are_an_outage(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    own_valkey.command("ACL", "SETUSER", "worker", "on", ">pw", "~*", "&*", "+@all")
    async with open_pipeline(
        own_valkey.url, f"redis://worker:pw@127.0.0.1:{own_valkey.port}/0"
    ) as pipe:
        await pipe.wait_stored()
        for right in ("xadd", "evalsha", "script|load"):
            own_valkey.command("ACL", "SETUSER", "worker", f"-{right}")
            own_valkey.command("SCRIPT", "FLUSH")
            caplog.clear()
            pipe.publish_lines(20)
            await eventually(lambda: "cannot reach the store" in caplog.text, "warning")
            assert "dropped" not in caplog.text
            own_valkey.command("ACL", "SETUSER", "worker", f"+{right}")
            await pipe.wait_received()
            await pipe.wait_stored()
        pipe.assert_in_order()
    assert "dropped" not in caplog.text


async def test_job_whose_events_are_refused_keeps_its_lease(own_valkey: Valkey) -> None:
    """A cluster keeps leases and jobs on different servers, of which only one may refuse writes."""
    own_valkey.command("ACL", "SETUSER", "worker", "on", ">pw", "~*", "&*", "+@all")
    worker_url = f"redis://worker:pw@127.0.0.1:{own_valkey.port}/0"
    publisher = Publisher(open_publisher(worker_url), shown_url="the store", lease=1.0)
    job = Job(StubRuntime(publisher), new_job_id(), origin=Origin(run=Run("aa", 1, "d1")))
    job.started()
    assert await asyncio.to_thread(publisher.flush, TIMEOUT)
    [lease] = own_valkey.command("ZRANGE", Names().running, 0, -1)
    own_valkey.command("ACL", "SETUSER", "worker", "-evalsha")
    job.log("refused")
    seen: set[float] = set()

    def renewed() -> bool:
        # The lease never disappears, and its expiry increases.
        seen.add(float(own_valkey.command("ZSCORE", Names().running, lease)))
        return publisher._backoff.failures >= 5 and len(seen) >= 5

    await eventually(renewed, "renewals while events are refused")
    own_valkey.command("ACL", "SETUSER", "worker", "+evalsha")
    await asyncio.to_thread(publisher.close)


async def test_events_published_during_a_slot_migration_arrive(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with started_servers(Cluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        async with open_pipeline(cluster.url) as pipe:
            key = f"{{{pipe.job.job_id}}}"
            for _ in range(3):
                moving = asyncio.create_task(asyncio.to_thread(cluster.move_slot_of, key))
                while not moving.done():
                    pipe.publish_lines(2)
                    await asyncio.sleep(0.01)
                await moving
                pipe.publish_lines(20)
                await pipe.wait_received()
            pipe.assert_in_order()


async def test_events_published_during_a_failover_arrive(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with started_servers(Sentinels(tmp_path_factory.mktemp("sentinels"))) as sentinels:
        async with open_pipeline(sentinels.url) as pipe:
            # Redis loses the events that a dying master has not replicated.
            await eventually(sentinels.in_sync, "replica in sync")
            failover = asyncio.create_task(asyncio.to_thread(sentinels.fail_over))
            await eventually(lambda: not pipe.relay.ready, "relay that is not ready")
            while not failover.done():
                pipe.publish_lines(2)
                await asyncio.sleep(0.01)
            await failover
            pipe.publish_lines(20)
            await pipe.wait_received()
            pipe.assert_in_order()


async def test_publisher_adapts_to_a_changed_server_clock(own_valkey: Valkey) -> None:
    """The publisher repeats a call that seems to be late, without a delay."""
    async with open_pipeline(own_valkey.url) as pipe:
        transport = pipe.publisher._transport
        assert isinstance(transport, RedisPublisher)
        known = transport._server_info[""]
        transport._server_info[""] = known._replace(ahead=known.ahead - 3600)
        pipe.publish_lines(20)
        await pipe.wait_received()
        assert abs(transport._server_info[""].ahead - known.ahead) < TIMEOUT


async def test_paused_former_master_publishes_no_duplicates(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A resumed master runs the commands in its sockets before it learns that it is a replica."""
    with started_servers(Sentinels(tmp_path_factory.mktemp("sentinels"))) as sentinels:
        async with open_pipeline(sentinels.url) as pipe:
            await eventually(sentinels.in_sync, "replica in sync")
            former = sentinels.master
            assert former is not None
            former.popen.send_signal(signal.SIGSTOP)
            try:
                pipe.publish_lines(20)
                await asyncio.to_thread(sentinels.successor_of, former)
                pipe.publish_lines(20)
                await pipe.wait_stored()
            finally:
                former.popen.send_signal(signal.SIGCONT)
            await eventually(lambda: _is_replica(former), "former master that is a replica")
            pipe.publish_lines(20)
            await pipe.wait_received()
            pipe.assert_in_order()


def _is_replica(server: RedisProcess) -> bool:
    try:
        return bool(server.command("INFO", "replication")["role"] == "slave")
    except RedisConnectionError:  # the Sentinels close all connections
        return False


def test_connection_lost_while_writing_is_reported_as_unavailable(
    own_valkey: Valkey,
) -> None:
    """uvloop, on which the server runs, raises its own exception for it."""

    async def use_aborted_connections() -> None:
        # uvloop does not end while a connection is open.
        async with aclosing(open_manager(own_valkey.url)) as manager:
            await use_aborted_client(manager)
            await use_aborted_subscriber(manager)

    async def use_aborted_client(manager: ClientManager) -> None:
        assert (await manager.source.snapshot("42")).state == "pending"
        assert isinstance(manager.source, RedisSource)
        assert isinstance(manager.source.client, Redis)
        for connection in manager.source.client.connection_pool._available_connections:
            assert connection._writer is not None
            connection._writer.transport.abort()
        # Older versions of redis-py replace the connection before they write to it.
        with suppress(TransportUnavailable):
            await manager.source.snapshot("42")
        assert (await manager.source.snapshot("42")).state == "pending"

    async def use_aborted_subscriber(manager: ClientManager) -> None:
        assert isinstance(manager.source, RedisSource)
        resumed = asyncio.Event()

        async def resume() -> None:
            resumed.set()

        manager.source.start(lambda _, __: None, resume)
        await eventually(lambda: manager.source.ready, "source that is ready")
        [subscriber] = manager.source._subscribers
        assert subscriber._connection._writer is not None
        subscriber._connection._writer.transport.abort()
        with pytest.raises(TransportUnavailable, match="could not subscribe"):
            await manager.source.subscribe("42")
        await asyncio.wait_for(resumed.wait(), TIMEOUT)
        await manager.source.subscribe("42")

    uvloop.run(use_aborted_connections())


async def test_resume_in_a_trimmed_history_is_not_recovered(own_valkey: Valkey) -> None:
    async with open_pipeline(own_valkey.url) as pipe:
        publisher = open_publisher(own_valkey.url)
        job_id = new_job_id()
        publisher.publish([Outgoing.of(started(job_id)), Outgoing.of(progress(job_id, 1))])
        publisher.publish([Outgoing.of(log(job_id, n)) for n in range(2000)])
        first = await pipe.relay.join(job_id, Recorder("2"))
        follower = Recorder("3")
        trimmed = await pipe.relay.join(job_id, follower, Cursor(epoch=first.epoch, seq=3))
        assert (trimmed.recovered, trimmed.epoch, trimmed.seq) == (False, first.epoch, 2002)
        assert 1000 <= len(follower.lines) < 2000
        assert follower.lines[-1] == "1999"
        oldest = 2003 - len(follower.lines)  # the seq of the oldest line that is left
        assert follower.gaps == [(3, oldest)]
        assert follower.names[:3] == ["joined", "job_status", "job_progress"]
        assert follower.events[0][1]["complete_from"] == oldest
        publisher.close()
