"""What Redis and the way to it can do, with the publisher and the relay that live with it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bench.chaos import Proxy
from bench.refusals import BUSY, MISCONF, NOREPLICAS, OOM, refusing
from jobcast.errors import TransportUnavailable
from jobcast.events import Cursor
from jobcast.publishing.job import Job
from jobcast.publishing.publisher import Publisher
from jobcast.realtime import metrics
from jobcast.realtime.relay import Relay
from jobcast.testing import log, new_job_id, progress, started
from jobcast.transports import Origin, Outgoing, Retention, Run, open_manager, open_publisher
from jobcast.transports.redis.names import Keys, Names
from jobcast.transports.redis.publisher import RedisPublisher
from jobcast.transports.redis.source import RedisSource
from tests.conftest import Valkey
from tests.support import TIMEOUT, Serving, eventually, running
from tests.support.recorder import Recorder
from tests.support.redis_family import Cluster, RedisProcess, Sentinels
from tests.support.redis_family import started as started_servers


class Scene:
    """A job that is spoken of on one side, and followed on the other."""

    def __init__(self, relay: Relay, publisher: Publisher) -> None:
        self.relay = relay
        self.publisher = publisher
        self.job = Job(Serving(publisher), new_job_id())
        self.follower = Recorder("1")
        self.said = 0

    def speak(self, lines: int) -> None:
        for _ in range(lines):
            self.job.log(str(self.said))
            self.job.progress(self.said)
            self.said += 1

    async def heard(self) -> None:
        """Wait until the follower has all of it, each line once and in order."""
        expected = [str(n) for n in range(self.said)]
        await eventually(lambda: len(self.follower.lines) >= self.said, f"{self.said} lines")
        assert self.follower.lines == expected

    async def confirmed(self) -> None:
        """Wait until the publisher knows that all of it is stored."""
        deadline = time.monotonic() + TIMEOUT
        while not await asyncio.to_thread(self.publisher.flush, 1):
            assert time.monotonic() < deadline, "not all was confirmed"
            await asyncio.sleep(0.02)

    def assert_in_order(self) -> None:
        assert self.follower.seqs == sorted(set(self.follower.seqs))


@asynccontextmanager
async def scene(url: str, worker_url: str | None = None) -> AsyncIterator[Scene]:
    """A scene whose follower is there, with one line heard."""
    manager = open_manager(url)
    relay = Relay(manager.source)
    relay.start()
    publisher = Publisher(open_publisher(worker_url or url), shown_url="the store")
    here = Scene(relay, publisher)
    try:
        await eventually(lambda: relay.ready, "relay that is ready")
        await relay.join(here.job.job_id, here.follower)
        here.speak(1)
        await here.heard()
        yield here
    finally:
        await asyncio.to_thread(publisher.close)
        await relay.aclose()
        await manager.aclose()


def _thrown_out(server: Valkey) -> bool:
    return bool(server.command("INFO", "stats")["client_output_buffer_limit_disconnections"])


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_connections_that_are_killed_again_and_again(own_valkey: Valkey, kind: str) -> None:
    async with scene(own_valkey.url) as here:
        for _ in range(10):
            here.speak(20)
            await asyncio.to_thread(own_valkey.command, "CLIENT", "KILL", "TYPE", kind)
            await asyncio.sleep(0.02)  # more is said while they come back
        await here.heard()
        here.assert_in_order()


@pytest.mark.parametrize("kind", [RedisProcess, Sentinels])
async def test_a_connection_that_was_cut_while_idle_refuses_nobody(
    kind: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A restart, a proxy or the server's own ``timeout`` cuts them; the store is there."""
    with started_servers(kind(tmp_path_factory.mktemp("servers"))) as servers:
        manager = open_manager(servers.url)
        master = servers if isinstance(servers, RedisProcess) else servers.master
        for _ in range(3):
            assert (await manager.source.snapshot("42")).state == "pending"
            assert await manager.source.owner("42") is None
            await asyncio.to_thread(master.command, "CLIENT", "KILL", "TYPE", "normal")
        await manager.aclose()


async def test_a_subscriber_that_is_thrown_out_for_reading_slowly(own_valkey: Valkey) -> None:
    own_valkey.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 64kb 1")
    async with scene(own_valkey.url) as here:
        line = "x" * 8000
        publisher = open_publisher(own_valkey.url, Retention(size=100_000))
        lines: list[str] = []
        # This blocks the loop, so that nobody reads what Redis has to say.
        while not _thrown_out(own_valkey):
            more = [f"{line}{len(lines) + n}" for n in range(50)]
            publisher.publish([Outgoing.of(log(here.job.job_id, text)) for text in more])
            lines += more
            assert len(lines) < 20_000
        await eventually(lambda: len(here.follower.lines) == len(lines) + 1, "the lines")
        assert here.follower.lines[1:] == lines
        here.assert_in_order()
        publisher.close()


async def test_a_restart_that_forgets_everything_begins_another_epoch(own_valkey: Valkey) -> None:
    async with scene(own_valkey.url) as here:
        here.speak(5)
        await here.heard()
        own_valkey.kill()
        await eventually(lambda: not here.relay.ready, "relay that is not ready")
        here.speak(5)
        own_valkey.start()
        await here.heard()
        joined = [payload for name, payload in here.follower.events if name == "joined"]
        assert len({payload["epoch"] for payload in joined}) == 3  # none at first
        assert here.relay.ready
        last = here.follower.events[-1][1]
        snapshot = await here.relay._source.snapshot(here.job.job_id)
        assert (snapshot.epoch, snapshot.seq) == (joined[-1]["epoch"], last["seq"])


async def test_a_restart_that_remembers_all_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("durable")
    options = ["--appendonly", "yes", "--appendfsync", "always"]
    with running(RedisProcess(folder, *options)) as server:
        server.ready()
        async with scene(server.url) as here:
            for _ in range(3):
                here.speak(20)
                server.kill()
                here.speak(20)
                server.start()
                server.ready()
            await here.heard()
            here.assert_in_order()
            assert here.follower.names.count("joined") == 2  # none at first


async def test_numbers_are_not_given_again_by_a_store_that_remembers_less(
    own_valkey: Valkey,
) -> None:
    """It comes back as it was a while ago, as a replica that was behind does."""
    async with scene(own_valkey.url) as here:
        dump = own_valkey.folder / "dump.rdb"
        own_valkey.command("SAVE")
        shutil.copy(dump, dump.with_suffix(".old"))
        here.speak(30)
        await here.heard()
        seen = here.follower.seqs[-1]
        epoch = here.follower.events[0][1]["epoch"]
        own_valkey.kill()
        shutil.copy(dump.with_suffix(".old"), dump)
        own_valkey.start()
        own_valkey.ready()
        here.speak(10)
        await here.heard()
        here.assert_in_order()
        assert here.follower.seqs[-1] > seen + 900_000
        late = Recorder("2")
        after = Cursor(epoch=here.follower.events[-1][1].get("epoch", epoch), seq=seen)
        await here.relay.join(here.job.job_id, late, after)
        # What the store has lost it cannot send; what it has, it sends once.
        assert set(late.lines) <= {str(n) for n in range(here.said)}
        assert late.lines[-10:] == [str(n) for n in range(31, 41)]


async def test_two_deployments_on_two_databases_of_one_server_do_not_wear_each_other_out(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Pub/sub ignores the number of the database."""
    async with scene(own_valkey.url) as here:
        other = open_publisher(own_valkey.url.removesuffix("/0") + "/1")
        reads = _reads(own_valkey)
        for n in range(200):
            event = Outgoing.of(log(here.job.job_id, "of the other deployment"))
            await asyncio.to_thread(other.publish, [event])
            if n % 10 == 0:
                here.speak(1)
                await here.heard()
        assert _reads(own_valkey) - reads < 20
        assert not here.relay._rooms[here.job.job_id].behind
        assert caplog.text.count("JOBCAST_PREFIX") == 1
        other.close()


def _reads(server: Valkey) -> int:
    calls: int = server.command("INFO", "commandstats")["cmdstat_xrange"]["calls"]
    return calls


async def test_a_record_that_was_restored_from_an_older_copy_is_shown_again(
    own_valkey: Valkey,
) -> None:
    """The server stays the same, so that it gives the same numbers again."""
    async with scene(own_valkey.url) as here:
        here.speak(5)
        await here.heard()
        await here.confirmed()
        keys = Keys.of(here.job.job_id)
        copies = {key: own_valkey.command("DUMP", key) for key in (keys.state, keys.lines)}
        here.speak(5)
        await here.heard()
        await here.confirmed()
        for key, copied in copies.items():
            own_valkey.command("RESTORE", key, 0, copied, "REPLACE")
        await asyncio.to_thread(own_valkey.command, "CLIENT", "KILL", "TYPE", "pubsub")
        kept = [str(n) for n in range(6)]
        await eventually(lambda: here.follower.lines[11:] == kept, "the record as it is now")
        # Those who were there are where those are who come now.
        late = Recorder("2")
        await here.relay.join(here.job.job_id, late)
        assert late.lines == kept


async def test_a_stream_that_was_evicted_is_no_proof_of_anything(own_valkey: Valkey) -> None:
    async with scene(own_valkey.url) as here:
        here.speak(10)
        await here.heard()
        await here.confirmed()
        second = Recorder("2")
        accepted = await here.relay.join(here.job.job_id, second)
        evicted = second.seqs[-2]  # the latest line; the progress is in the record
        own_valkey.command("DEL", Keys.of(here.job.job_id).lines)
        after = Cursor(epoch=accepted.epoch, seq=5)
        third = Recorder("3")
        again = await here.relay.join(here.job.job_id, third, after)
        assert again.recovered is False
        assert again.epoch == accepted.epoch
        assert third.names == ["joined", "job_gap", "job_progress"]
        assert third.gaps == [(5, evicted + 1)]
        # Who had seen all of it has missed nothing.
        here.speak(1)
        await here.heard()
        await here.confirmed()
        after = Cursor(epoch=accepted.epoch, seq=accepted.seq)
        fourth = Recorder("4")
        assert (await here.relay.join(here.job.job_id, fourth, after)).recovered
        assert fourth.names == ["joined", "job_log", "job_progress"]
        late = Recorder("5")
        await here.relay.join(here.job.job_id, late)
        assert late.names == ["joined", "job_gap", "job_log", "job_progress"]
        assert late.gaps == [(0, evicted + 1)]


async def test_a_connection_that_has_silently_died_is_found(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall forgets it after minutes of silence, and tells neither end."""
    monkeypatch.setattr("jobcast.transports.redis.subscriber.PING_INTERVAL", 0.2)
    proxy = Proxy()
    await proxy.start()
    proxy.target = own_valkey.port
    async with scene(f"redis://127.0.0.1:{proxy.port}/0", own_valkey.url) as here:
        for link in proxy.links:
            link.hold()
        here.speak(20)
        await here.heard()
        here.assert_in_order()
    await proxy.aclose()


async def test_subscriptions_that_were_lost_are_found_by_a_canary(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is up and answers pings, and nothing comes by it."""
    async with scene(own_valkey.url) as here:
        source = here.relay._source
        assert isinstance(source, RedisSource)
        for _ in range(3):
            [line] = source._subscribers
            await line._send(("UNSUBSCRIBE",))
            here.speak(1)
            await here.heard()
        here.assert_in_order()
    assert "does not receive messages" in caplog.text


async def test_each_master_of_a_cluster_has_a_canary(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with started_servers(Cluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        async with scene(cluster.url) as here:
            source = here.relay._source
            assert isinstance(source, RedisSource)
            assert len(set(source._canaries.values())) == len(cluster.nodes)
            line = source._subscriber_for(Keys.of(here.job.job_id).channel)
            await line._send(("SUNSUBSCRIBE",))
            here.speak(1)
            await here.heard()


async def test_a_process_that_hears_nothing_is_not_ready_and_says_why(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcast.transports.canary.SILENCE", 3.0)
    async with scene(own_valkey.url) as here:
        own_valkey.command("ACL", "SETUSER", "default", "-publish")
        await eventually(lambda: "has arrived for" in here.relay.problem, "unready process")
        assert "no permissions" in here.relay.problem
        await eventually(lambda: metrics.CANARY_AGE._value.get() > 3.0, "age")
        own_valkey.command("ACL", "SETUSER", "default", "+publish")
        await eventually(lambda: here.relay.ready, "ready process")


async def test_a_silent_channel_stays_subscribed_to(
    own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As short as a loaded machine can still answer in.
    monkeypatch.setattr("jobcast.transports.redis.subscriber.PING_INTERVAL", 1.0)
    async with scene(own_valkey.url) as here:
        before = _subscribers(own_valkey)
        await eventually(lambda: _pings(own_valkey) >= 3, "3 pings")
        here.speak(1)
        await here.heard()
        assert _subscribers(own_valkey) == before


def _subscribers(server: Valkey) -> list[str]:
    lines = server.command("CLIENT", "LIST", "TYPE", "pubsub").decode().splitlines()
    return [line.partition(" ")[0] for line in lines]


def _pings(server: Valkey) -> int:
    return int(server.command("INFO", "commandstats").get("cmdstat_ping", {}).get("calls", 0))


async def test_an_answer_that_was_lost_does_not_make_events_appear_twice(
    own_valkey: Valkey,
) -> None:
    proxy = Proxy()
    await proxy.start()
    proxy.target = own_valkey.port
    async with scene(own_valkey.url, f"redis://127.0.0.1:{proxy.port}/0") as here:
        for _ in range(10):
            await here.confirmed()
            [link] = proxy.links
            link.drop_answers()
            here.speak(20)
            await link.gone.wait()
            # The events are there; whoever published them does not know.
            await eventually(lambda: len(here.follower.lines) > here.said - 20, "lines")
        await here.heard()
        here.assert_in_order()
        await here.confirmed()
        snapshot = await here.relay._source.snapshot(here.job.job_id)
        assert len([m for m in snapshot.events if m.kind == "l"]) == here.said
    await proxy.aclose()


async def test_a_server_that_hangs_is_waited_for_by_nobody(own_valkey: Valkey) -> None:
    async with scene(own_valkey.url) as here:
        own_valkey.popen.send_signal(signal.SIGSTOP)
        try:
            here.speak(1)
            began = time.thread_time()
            here.speak(200)
            assert time.thread_time() - began < 1.0  # of CPU time: it did not wait for anything
        finally:
            own_valkey.popen.send_signal(signal.SIGCONT)
        await here.heard()


@pytest.mark.parametrize("code", [MISCONF, NOREPLICAS, BUSY, OOM])
async def test_a_server_that_refuses_writes_is_away_and_no_event_is_dropped(
    own_valkey: Valkey, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(own_valkey.url) as here:
        await here.confirmed()
        with refusing(own_valkey, code):
            here.speak(20)
            await eventually(lambda: "cannot reach the store" in caplog.text, "warning")
            here.speak(20)
        await here.heard()
        here.assert_in_order()
        await here.confirmed()
    assert caplog.text.count("cannot reach the store") == 1
    assert "dropped" not in caplog.text


async def test_rights_that_are_missing_inside_the_script_are_an_outage(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    own_valkey.command("ACL", "SETUSER", "worker", "on", ">pw", "~*", "&*", "+@all")
    async with scene(own_valkey.url, f"redis://worker:pw@127.0.0.1:{own_valkey.port}/0") as here:
        await here.confirmed()
        for right in ("xadd", "evalsha", "script|load"):
            own_valkey.command("ACL", "SETUSER", "worker", f"-{right}")
            own_valkey.command("SCRIPT", "FLUSH")
            caplog.clear()
            here.speak(20)
            await eventually(lambda: "cannot reach the store" in caplog.text, "warning")
            assert "dropped" not in caplog.text
            own_valkey.command("ACL", "SETUSER", "worker", f"+{right}")
            await here.heard()
            await here.confirmed()
        here.assert_in_order()
    assert "dropped" not in caplog.text


async def test_a_job_whose_events_are_refused_keeps_its_lease(own_valkey: Valkey) -> None:
    """A cluster has leases and jobs on different servers: one may refuse, the other not."""
    own_valkey.command("ACL", "SETUSER", "worker", "on", ">pw", "~*", "&*", "+@all")
    worker_url = f"redis://worker:pw@127.0.0.1:{own_valkey.port}/0"
    publisher = Publisher(open_publisher(worker_url), shown_url="the store", lease=1.0)
    job = Job(Serving(publisher), new_job_id(), origin=Origin(run=Run("aa", 1, "d1")))
    job.started()
    assert await asyncio.to_thread(publisher.flush, TIMEOUT)
    [lease] = own_valkey.command("ZRANGE", Names().running, 0, -1)
    own_valkey.command("ACL", "SETUSER", "worker", "-evalsha")
    job.log("refused")
    seen: set[float] = set()

    def renewed() -> bool:
        # It may never be missing, and its time goes on.
        seen.add(float(own_valkey.command("ZSCORE", Names().running, lease)))
        return publisher._backoff.failures >= 5 and len(seen) >= 5

    await eventually(renewed, "renewals while events are refused")
    own_valkey.command("ACL", "SETUSER", "worker", "+evalsha")
    await asyncio.to_thread(publisher.close)


async def test_a_slot_of_a_cluster_moves_while_events_flow(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with started_servers(Cluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        async with scene(cluster.url) as here:
            key = f"{{{here.job.job_id}}}"
            for _ in range(3):
                moving = asyncio.create_task(asyncio.to_thread(cluster.move_slot_of, key))
                while not moving.done():
                    here.speak(2)
                    await asyncio.sleep(0.01)
                await moving
                here.speak(20)
                await here.heard()
            here.assert_in_order()


async def test_a_master_is_replaced_while_events_flow(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with started_servers(Sentinels(tmp_path_factory.mktemp("sentinels"))) as sentinels:
        async with scene(sentinels.url) as here:
            # What a master has not passed on when it dies is lost; that is Redis's own rule.
            await eventually(sentinels.in_sync, "replica in sync")
            failing = asyncio.create_task(asyncio.to_thread(sentinels.fail_over))
            await eventually(lambda: not here.relay.ready, "relay that is not ready")
            while not failing.done():
                here.speak(2)
                await asyncio.sleep(0.01)
            await failing
            here.speak(20)
            await here.heard()
            here.assert_in_order()


async def test_a_publisher_learns_that_the_clock_of_the_server_was_set(own_valkey: Valkey) -> None:
    """A call that seems to be late is sent again; nobody has to wait for that."""
    async with scene(own_valkey.url) as here:
        transport = here.publisher._transport
        assert isinstance(transport, RedisPublisher)
        known = transport._server_info[""]
        transport._server_info[""] = known._replace(ahead=known.ahead - 3600)
        here.speak(20)
        await here.heard()
        assert abs(transport._server_info[""].ahead - known.ahead) < TIMEOUT


async def test_a_master_that_was_paused_publishes_nothing_that_another_has_published(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """When it wakes it runs what waited in its sockets, before it learns that it is a replica."""
    with started_servers(Sentinels(tmp_path_factory.mktemp("sentinels"))) as sentinels:
        async with scene(sentinels.url) as here:
            await eventually(sentinels.in_sync, "replica in sync")
            former = sentinels.master
            assert former is not None
            former.popen.send_signal(signal.SIGSTOP)
            try:
                here.speak(20)
                await eventually(lambda: sentinels.master not in (None, former), "another master")
                here.speak(20)
                await here.confirmed()
            finally:
                former.popen.send_signal(signal.SIGCONT)
            await eventually(lambda: _is_replica(former), "former master that is a replica")
            here.speak(20)
            await here.heard()
            here.assert_in_order()


def _is_replica(server: RedisProcess) -> bool:
    try:
        return bool(server.command("INFO", "replication")["role"] == "slave")
    except RedisConnectionError:  # the Sentinels cut all connections
        return False


def test_a_connection_that_is_lost_at_the_moment_of_writing_is_one_that_is_lost(
    own_valkey: Valkey,
) -> None:
    """uvloop, on which the server runs, has an error of its own for it."""

    async def ask() -> None:
        manager = open_manager(own_valkey.url)
        assert (await manager.source.snapshot("42")).state == "pending"
        assert isinstance(manager.source, RedisSource)
        assert isinstance(manager.source.client, Redis)
        for connection in manager.source.client.connection_pool._available_connections:
            assert connection._writer is not None
            connection._writer.transport.abort()
        with pytest.raises(TransportUnavailable, match="handler is closed"):
            await manager.source.snapshot("42")
        assert (await manager.source.snapshot("42")).state == "pending"

        resumed = asyncio.Event()

        async def resume() -> None:
            resumed.set()

        manager.source.start(lambda _, __: None, resume)
        await eventually(lambda: manager.source.ready, "source that is ready")
        [line] = manager.source._subscribers
        assert line._connection._writer is not None
        line._connection._writer.transport.abort()
        with pytest.raises(TransportUnavailable, match="could not subscribe"):
            await manager.source.subscribe("42")
        await asyncio.wait_for(resumed.wait(), TIMEOUT)
        await manager.source.subscribe("42")
        await manager.aclose()

    uvloop.run(ask())


async def test_resuming_in_a_history_that_was_trimmed_says_so(own_valkey: Valkey) -> None:
    async with scene(own_valkey.url) as here:
        publisher = open_publisher(own_valkey.url)
        job_id = new_job_id()
        publisher.publish([Outgoing.of(started(job_id)), Outgoing.of(progress(job_id, 1))])
        publisher.publish([Outgoing.of(log(job_id, n)) for n in range(2000)])
        first = await here.relay.join(job_id, Recorder("2"))
        follower = Recorder("3")
        trimmed = await here.relay.join(job_id, follower, Cursor(epoch=first.epoch, seq=3))
        assert (trimmed.recovered, trimmed.epoch, trimmed.seq) == (False, first.epoch, 2002)
        assert 1000 <= len(follower.lines) < 2000
        assert follower.lines[-1] == "1999"
        oldest = 2003 - len(follower.lines)  # the seq of the oldest line that is left
        assert follower.gaps == [(3, oldest)]
        assert follower.names[:3] == ["joined", "job_status", "job_progress"]
        assert follower.events[0][1]["complete_from"] == oldest
        publisher.close()
