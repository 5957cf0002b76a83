"""The contract tests for every transport, and tests that are specific to Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from jobcast.errors import PublishFailed, TransportUnavailable
from jobcast.events import JobComplete
from jobcast.testing import (
    AnsweredCancellationContract,
    Ends,
    FeedContract,
    InterruptedCancellationContract,
    InterruptedFeedContract,
    InterruptionContract,
    LeaseContract,
    RepeatedCancellationContract,
    RevocationContract,
    TransportContract,
    log,
    new_job_id,
    on_both_ends,
    progress,
    started,
)
from jobcast.transports import (
    Message,
    Origin,
    Outgoing,
    Retention,
    Run,
    open_manager,
    open_publisher,
)
from jobcast.transports.leases import (
    Finding,
    Lease,
    LeaseTimeouts,
    SupportsLeaseMonitoring,
    SupportsLeaseRenewal,
)
from jobcast.transports.redis import leases as redis_leases
from jobcast.transports.redis.names import Names
from jobcast.transports.redis.publisher import RedisPublisher
from jobcast.transports.redis.source import RedisSource
from tests.conftest import Valkey
from tests.support import ROOT, TIMEOUT, eventually, new_id
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis_family import Cluster, RedisProcess, Sentinels, TlsRedis, redis_server
from tests.support.redis_family import started as started_servers

GUIDE = ROOT / "docs" / "how-to" / "redis.md"


NAMES = Names()
LONG = LeaseTimeouts(lease=3600, lost_after=3600)
TAKE_OVER = 900.0  # seconds until another process may take over, longer than any test


class ElectionContract(TransportContract):
    """Of several processes that monitor the same leases, one is elected to report them.

    These tests do not wait: they set back the time of the last scan in the store.
    """

    @on_both_ends
    async def test_only_the_elected_process_finds_expired_leases(
        self, ends: Ends, job_id: str
    ) -> None:
        async with self._elected(ends) as (first, second):
            leases = {Lease(job_id, Run("aa", n, f"d{n}")) for n in range(1, 4)}
            for lease in leases:
                await self._expire(ends, lease)
                assert await second.scan(LONG) == []
            found = await first.scan(LONG)
            assert {finding.lease for finding in found} == leases
            # The same process finds unacknowledged leases again.
            assert await second.scan(LONG) == []
            assert await first.scan(LONG) == found
            await first.acknowledge(found, LONG)
            assert await second.scan(LONG) == await first.scan(LONG) == []

    @on_both_ends
    async def test_only_one_of_many_concurrent_scans_finds_a_lease(
        self, ends: Ends, job_id: str
    ) -> None:
        async with self._elected(ends) as (first, second):
            await self._expire(ends, Lease(job_id, Run("aa", 1, "d1")))
            assert await second.scan(LONG) == []  # connects the client before the concurrent scans
            sources = [second] * 5 + [first] * 5 + [second] * 5
            answers = await asyncio.gather(*(source.scan(LONG) for source in sources))
            assert [bool(found) for found in answers] == [source is first for source in sources]

    @on_both_ends
    async def test_another_process_takes_over_from_an_absent_one(
        self, ends: Ends, job_id: str
    ) -> None:
        async with self._elected(ends) as (first, second):
            lease = Lease(job_id, Run("aa", 1, "d1"))
            await self._expire(ends, lease)
            await self._set_back_last_scan(second, TAKE_OVER / 2)
            assert await second.scan(LONG) == []
            await self._set_back_last_scan(second, TAKE_OVER)
            assert [finding.lease for finding in await second.scan(LONG)] == [lease]
            # The former process was only slow. It stays out as long as the other one scans.
            assert await first.scan(LONG) == []
            assert [finding.lease for finding in await second.scan(LONG)] == [lease]

    @on_both_ends
    async def test_process_that_takes_over_after_a_long_gap_waits_for_renewals(
        self, ends: Ends, job_id: str
    ) -> None:
        async with self._elected(ends) as (_, second):
            await self._expire(ends, Lease(job_id, Run("aa", 1, "d1")))
            await self._set_back_last_scan(second, LONG.lease)
            for _ in range(3):
                assert await second.scan(LONG) == []

    @asynccontextmanager
    async def _elected(self, ends: Ends) -> AsyncIterator[tuple[RedisSource, RedisSource]]:
        """Yield two sources, the first of which has monitored leases for long."""
        first, other = ends.source, open_manager(ends.url)
        assert isinstance(first, RedisSource)
        assert isinstance(other.source, RedisSource)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(redis_leases, "TAKE_OVER", TAKE_OVER)
                await self._delete_leases(first)
                assert await first.scan(LONG) == []
                await first.client.hset(NAMES.watch, "since", 0)
                yield first, other.source
        finally:
            await self._delete_leases(first)
            await other.aclose()

    async def _delete_leases(self, source: RedisSource) -> None:
        for key in (NAMES.watch, NAMES.running, NAMES.stalled):
            await source.client.delete(key)

    async def _expire(self, ends: Ends, lease: Lease) -> None:
        assert isinstance(ends.publisher, SupportsLeaseRenewal)
        await asyncio.to_thread(ends.publisher.renew, [lease], 0)

    async def _set_back_last_scan(self, source: RedisSource, seconds: float) -> None:
        """Make the last scan appear older by so many seconds."""
        await source.client.hincrbyfloat(NAMES.watch, "at", -seconds)


class TestMemory(LeaseContract, RevocationContract, FeedContract, AnsweredCancellationContract):
    @pytest.fixture
    def transport_url(self) -> str:
        return f"memory://{new_id()}"


class RedisContract(InterruptionContract):
    """The contract with interruptions that close every kind of connection."""

    @pytest.fixture(autouse=True)
    def keep_server(self, server: Any) -> None:
        self.servers: list[Any] = getattr(server, "nodes", [server])

    @pytest.fixture
    def transport_url(self, server: Any) -> str:
        return str(server.url)

    def interrupt(self) -> None:
        for server in self.servers:
            for kind in ("pubsub", "normal"):
                server.command("CLIENT", "KILL", "TYPE", kind)

    @on_both_ends
    async def test_source_keeps_no_state_of_unsubscribed_jobs(
        self, ends: Ends, job_id: str
    ) -> None:
        source = ends.source
        assert isinstance(source, RedisSource)

        def is_empty() -> bool:
            kept = (
                source._handlers,
                source._unsubscribing,
                source._confirmations,
                source._unconfirmed,
            )
            return not any(kept)

        for each in [job_id, *(new_job_id() for _ in range(20)), job_id]:
            await source.subscribe(each)
            await source.unsubscribe(each)
        await eventually(is_empty, "source without state of the jobs")
        # Late confirmations of the server change nothing.
        await source.subscribe(job_id)
        await ends.publish(log(job_id))
        await ends.wait_received(1)
        await source.unsubscribe(job_id)
        await eventually(is_empty, "source without state of the job")


class TestValkey(
    RedisContract,
    LeaseContract,
    ElectionContract,
    RevocationContract,
    InterruptedFeedContract,
    AnsweredCancellationContract,
    InterruptedCancellationContract,
):
    @pytest.fixture
    def server(self, valkey: Valkey) -> Valkey:
        return valkey

    async def test_invalid_lease_is_removed_and_hides_no_other(self, transport_url: str) -> None:
        """Another program or another version may have written the entry."""
        manager, publisher = open_manager(transport_url), open_publisher(transport_url)
        assert isinstance(publisher, SupportsLeaseRenewal)
        assert isinstance(manager.source, SupportsLeaseMonitoring)
        lease = Lease(new_id(), Run("aa", 1, "d1"))
        terms = LeaseTimeouts(lease=0.6, lost_after=60)
        found: list[Finding] = []
        with Redis.from_url(transport_url) as client:
            client.zadd(NAMES.running, {"not a lease": 1})
            await asyncio.to_thread(publisher.renew, [lease], 0.1)
            while not found:
                found += await manager.source.scan(terms)
            assert [finding.lease for finding in found] == [lease]
            assert client.zrange(NAMES.running, 0, -1) == [str(lease).encode()]
        await asyncio.to_thread(publisher.release, [lease])
        await asyncio.to_thread(publisher.close)
        await manager.aclose()

    async def test_leases_expire_after_the_server_clock_was_set_back(
        self, transport_url: str
    ) -> None:
        """The stored times are those of a clock that was an hour ahead."""
        former, manager = open_manager(transport_url), open_manager(transport_url)
        publisher = open_publisher(transport_url)
        assert isinstance(publisher, SupportsLeaseRenewal)
        assert isinstance(former.source, SupportsLeaseMonitoring)
        assert isinstance(manager.source, SupportsLeaseMonitoring)
        dead, stalled, living = (Lease(new_id(), Run("aa", 1, f"d{n}")) for n in range(3))
        terms = LeaseTimeouts(lease=0.6, lost_after=0.6)
        deadline = time.monotonic() + TIMEOUT
        found: list[Finding] = []

        async def scan(source: SupportsLeaseMonitoring) -> list[Finding]:
            assert time.monotonic() < deadline, f"timed out; found only {found}"
            await asyncio.to_thread(publisher.renew, [living], 60)
            return await source.scan(terms)

        await asyncio.to_thread(publisher.renew, [stalled], 0.1)
        while not found:
            found += await scan(former.source)
        await former.source.acknowledge(found, terms)
        await asyncio.to_thread(publisher.renew, [dead], 0.6)
        names = Names()
        with Redis.from_url(transport_url) as client:
            for key in (names.running, names.stalled):
                for member, score in client.zrange(key, 0, -1, withscores=True):
                    client.zadd(key, {member: score + 3600})
            at, since = (float(value) for value in client.hmget(names.watch, "at", "since"))
            client.hset(names.watch, mapping={"at": at + 3600, "since": since + 3600})
        while len({(finding.kind, finding.lease) for finding in found}) < 3:
            found += await scan(manager.source)
        assert {(finding.kind, finding.lease) for finding in found} == {
            ("stalled", stalled), ("lost", stalled), ("stalled", dead),
        }  # fmt: skip
        await asyncio.to_thread(publisher.release, [dead, stalled, living])
        await asyncio.to_thread(publisher.close)
        for other in (former, manager):
            await other.aclose()

    @pytest.fixture
    def transport_url(self, server: Valkey) -> str:
        # A separate database: the Socket.IO process of other tests may monitor leases.
        return server.url.removesuffix("/0") + "/1"


@pytest.fixture(scope="module")
def redis_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with started_servers(
        RedisProcess(tmp_path_factory.mktemp("a"), binary=redis_server())
    ) as server:
        yield server


class TestRedis(RedisContract, InterruptedFeedContract):
    @pytest.fixture
    def server(self, redis_7: RedisProcess) -> RedisProcess:
        return redis_7


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    with started_servers(TlsRedis(tmp_path_factory.mktemp("tls"))) as server:
        yield server


class TestTls(RedisContract):
    @pytest.fixture
    def server(self, tls_redis: TlsRedis) -> TlsRedis:
        return tls_redis


@pytest.fixture(scope="module")
def unix_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    folder = tmp_path_factory.mktemp("u")
    with started_servers(RedisProcess(folder, "--unixsocket", str(folder / "r.sock"))) as server:
        yield server


class TestUnixSocket(RedisContract):
    @pytest.fixture
    def server(self, unix_redis: RedisProcess) -> RedisProcess:
        return unix_redis

    @pytest.fixture
    def transport_url(self, server: RedisProcess) -> str:
        return f"unix://{server.folder}/r.sock?db=0"


@pytest.fixture(scope="module")
def acl_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with started_servers(RedisProcess(tmp_path_factory.mktemp("acl"))) as server:
        for user, rules in acl_users().items():
            server.command("ACL", "SETUSER", user, "on", ">pass word", *rules)
        server.command("ACL", "SETUSER", "default", "-@pubsub", "+client|kill", "resetkeys")
        yield server


class TestAcl(
    RedisContract,
    LeaseContract,
    RevocationContract,
    InterruptedFeedContract,
    AnsweredCancellationContract,
):
    """The contract with the documented rights of a server and of a worker."""

    @pytest.fixture
    def server(self, acl_redis: RedisProcess) -> RedisProcess:
        return acl_redis

    @pytest.fixture
    def transport_url(self, server: RedisProcess) -> str:
        return acl_url(server, "jobcast")

    @pytest.fixture
    def worker_url(self, server: RedisProcess) -> str:
        return acl_url(server, "jobcast-worker")


def acl_url(server: RedisProcess, user: str) -> str:
    return f"redis://{user}:pass%20word@127.0.0.1:{server.port}/0"


async def test_worker_may_not_read_history(acl_redis: RedisProcess, job_id: str) -> None:
    publisher = open_publisher(acl_url(acl_redis, "jobcast-worker"))
    publisher.publish([Outgoing.of(event) for event in (started(job_id), progress(job_id, 1))])
    source = open_manager(acl_url(acl_redis, "jobcast-worker")).source
    with pytest.raises(TransportUnavailable, match="permission"):
        await source.snapshot(job_id)
    await source.aclose()
    publisher.close()


@pytest.mark.parametrize("user", ["jobcast", "jobcast-worker"])
async def test_rights_are_limited_to_the_prefix(acl_redis: RedisProcess, user: str) -> None:
    url, job_id = acl_url(acl_redis, user), new_job_id()
    other = open_publisher(url, prefix="another")
    with pytest.raises(PublishFailed, match="permission"):
        other.publish([Outgoing.of(log(job_id))])
    other.close()
    with Redis.from_url(url) as client:
        for command in (
            ("PUBLISH", "another", "x"), ("SET", "another", "x"), ("GET", "jobcast:{leases}:watch"),
            ("KEYS", "*"), ("CONFIG", "GET", "*"), ("FLUSHALL",), ("ACL", "LIST"), ("MONITOR",),
            ("CLIENT", "LIST"), ("EVAL", "return redis.call('KEYS', '*')", 0),
        ):  # fmt: skip
            with pytest.raises(ResponseError, match=r"permission|NOPERM|ACL"):
                client.execute_command(*command)


async def test_worker_may_emit_to_rooms(acl_redis: RedisProcess) -> None:
    async def resumed() -> None:
        raise AssertionError("nothing was interrupted")

    source = open_manager(acl_url(acl_redis, "jobcast")).source
    assert isinstance(source, RedisSource)
    source.start(lambda *_: None, resumed)
    await eventually(lambda: source.ready, "source that is ready")
    publisher = open_publisher(acl_url(acl_redis, "jobcast-worker"))
    await asyncio.to_thread(publisher.emit, "news", "x", room="lobby")
    assert b"lobby" in await asyncio.wait_for(source.bus.get(), TIMEOUT)
    await source.aclose()
    publisher.close()


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with started_servers(Sentinels(tmp_path_factory.mktemp("sentinels"))) as server:
        yield server


class TestSentinel(
    RedisContract,
    InterruptedFeedContract,
    AnsweredCancellationContract,
    InterruptedCancellationContract,
):
    @pytest.fixture
    def server(self, sentinels: Sentinels) -> Sentinels:
        return sentinels

    def interrupt(self) -> None:
        """Kill the master, so that a replica takes over."""
        self.servers[0].fail_over()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started_servers(Cluster(tmp_path_factory.mktemp("cluster"))) as server:
        yield server


class TestCluster(
    RedisContract,
    LeaseContract,
    ElectionContract,
    RevocationContract,
    InterruptedFeedContract,
    AnsweredCancellationContract,
):
    @pytest.fixture
    def server(self, cluster: Cluster) -> Cluster:
        return cluster


async def test_cluster_works_with_the_documented_additional_rights(
    cluster: Cluster, job_id: str
) -> None:
    users = acl_users()
    for node in cluster.nodes:
        for user in ("jobcast", "jobcast-worker"):
            rules = [*users[user], *CLUSTER_RIGHTS]
            node.command("ACL", "SETUSER", user, "on", ">password", *rules)
    received: list[Message] = []

    async def resumed() -> None:
        raise AssertionError("nothing was interrupted")

    def url_of(user: str) -> str:
        return cluster.url.replace("://", f"://{user}:password@")

    publisher, manager = open_publisher(url_of("jobcast-worker")), open_manager(url_of("jobcast"))
    manager.source.start(lambda _, message: received.append(message), resumed)
    await manager.source.subscribe(job_id)
    await asyncio.to_thread(publisher.publish, [Outgoing.of(log(job_id))])
    await eventually(lambda: received, "message")
    assert (await manager.source.snapshot(job_id)).seq == 1
    await manager.aclose()
    publisher.close()


class TestRabbitMQ(
    LeaseContract,
    RevocationContract,
    InterruptedFeedContract,
    RepeatedCancellationContract,
    InterruptedCancellationContract,
):
    @pytest.fixture
    def transport_url(self, rabbitmq: RabbitMQ) -> str:
        self.server = rabbitmq
        return rabbitmq.url

    def interrupt(self) -> None:
        self.server.crash()
        self.server.start()
        self.server.ready()


CLUSTER_RIGHTS = "+cluster|slots", "+cluster|shards", "+command", "+readonly"


def test_documentation_lists_the_rights_for_a_cluster() -> None:
    assert all(f"`{right}`" in GUIDE.read_text() for right in CLUSTER_RIGHTS)


def acl_users() -> dict[str, list[str]]:
    """Return the ACL rules of each user that the documentation lists."""
    users = {}
    for line in GUIDE.read_text().splitlines():
        if line.startswith("ACL SETUSER "):
            _, _, user, _, _, *rules = line.split()
            users[user] = rules
    return users


async def test_foreign_messages_on_a_channel_are_ignored(
    valkey: Valkey, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Message] = []

    async def resumed() -> None:
        raise AssertionError("nothing was interrupted")

    source = open_manager(valkey.url).source
    source.start(lambda _, message: received.append(message), resumed)
    await source.subscribe(job_id)
    for garbage in (b"hello", b"a b c", b"\xff\xfe 1 p x", b"epoch seq p {}"):
        valkey.command("PUBLISH", f"jobcast:{{{job_id}}}:live", garbage)
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(job_id))])
    await eventually(lambda: received, "message")
    assert [message.seq for message in received] == [1]
    assert caplog.text.count("that is not jobcast's") == 4
    await source.aclose()
    publisher.close()


async def test_source_recovers_after_a_receiver_failed(
    valkey: Valkey, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Message] = []
    resumes: list[None] = []

    def receive(_: str, message: Message) -> None:
        received.append(message)
        if len(received) == 1:
            raise RuntimeError("a bug")

    async def resumed() -> None:
        resumes.append(None)

    source = open_manager(valkey.url).source
    source.start(receive, resumed)
    await source.subscribe(job_id)
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(job_id))])
    await eventually(lambda: resumes, "resumed source")
    publisher.publish([Outgoing.of(log(job_id))])
    await eventually(lambda: len(received) == 2, "message")
    assert "receiving from Redis failed" in caplog.text
    await source.aclose()
    publisher.close()


async def test_keys_of_a_job_share_a_slot_and_expire(valkey: Valkey, job_id: str) -> None:
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=100))
    publisher.emit("job_log", {"level": "info", "message": "x"}, room=f"job_{job_id}")
    keys: list[Any] = valkey.command("KEYS", f"*{job_id}*")
    assert {key.decode() for key in keys} == {
        f"jobcast:{{{job_id}}}:state", f"jobcast:{{{job_id}}}:lines",
    }  # fmt: skip
    # A running job may publish nothing for a long time.
    assert all(valkey.command("TTL", key) > 80_000 for key in keys)
    publisher.emit("job_complete", {"result": 1}, room=f"job_{job_id}")
    assert all(0 < valkey.command("TTL", key) <= 60 for key in keys)
    publisher.close()


async def test_publisher_reloads_a_flushed_script(valkey: Valkey, job_id: str) -> None:
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(job_id))])
    valkey.command("SCRIPT", "FLUSH")
    publisher.publish([Outgoing.of(log(job_id)), Outgoing.of(log(job_id))])
    source = open_manager(valkey.url).source
    assert (await source.snapshot(job_id)).seq == 3
    await source.aclose()
    publisher.close()


async def test_lease_of_a_run_whose_ending_is_refused_is_not_released(
    valkey: Valkey, job_id: str
) -> None:
    """The log cannot be written, so its batch is dropped. The monitor can still end the job."""
    publisher = RedisPublisher(valkey.url)
    runs = [Lease(name, Run("aa", 1, new_id("d"))) for name in (job_id, new_id())]
    refused, ended = runs
    publisher.renew(runs, 600)
    publisher.publish([Outgoing.of(started(job_id), Origin(run=refused.run))])
    valkey.command("SET", NAMES.of(job_id).lines, "not a stream")
    for lease in runs:
        events = log(lease.job_id), JobComplete(job_id=lease.job_id, result=None)
        publisher.publish([Outgoing.of(event, Origin(run=lease.run)) for event in events])
    publisher.release(runs)
    publisher.close()
    assert valkey.command("ZSCORE", NAMES.running, str(refused)) is not None
    assert valkey.command("ZSCORE", NAMES.running, str(ended)) is None
    valkey.command("ZREM", NAMES.running, str(refused))


async def test_job_with_a_key_of_another_type_does_not_block_other_jobs(
    valkey: Valkey, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = new_id()
    valkey.command("SET", f"jobcast:{{{broken}}}:state", "not a hash")
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(broken)), Outgoing.of(log(job_id))])
    assert f"job {broken}: dropped 1 events that Redis refuses (WRONGTYPE" in caplog.text
    source = open_manager(valkey.url).source
    assert (await source.snapshot(job_id)).seq == 1
    await source.aclose()
    publisher.close()
