"""Every transport keeps the same rules; and what is particular to Redis."""

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
from jobcast.testing import (
    Ends,
    InterruptionContract,
    LeaseContract,
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
from jobcast.transports.redis import source as redis_source
from jobcast.transports.redis.names import Names
from jobcast.transports.redis.source import RedisSource
from tests.conftest import Valkey
from tests.support import ROOT, TIMEOUT, eventually, new_id
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis_family import Cluster, RedisProcess, Sentinels, TlsRedis, redis_server
from tests.support.redis_family import started as started_servers

GUIDE = ROOT / "docs" / "how-to" / "redis.md"


NAMES = Names()
LONG = LeaseTimeouts(lease=3600, lost_after=3600)
PATIENCE = 900.0  # seconds until another may take over: more than a test takes


class ElectionContract(TransportContract):
    """Where several processes see the same leases, one of them speaks of these.

    Nothing here waits: the store's clock says who looked when, so it is put back.
    """

    @on_both_ends
    async def test_one_process_at_a_time_is_told(self, ends: Ends, job_id: str) -> None:
        async with self._elected(ends) as (first, second):
            leases = {Lease(job_id, Run("aa", n, f"d{n}")) for n in range(1, 4)}
            for lease in leases:
                await self._let_run_out(ends, lease)
                assert await second.scan(LONG) == []
            found = await first.scan(LONG)
            assert {finding.lease for finding in found} == leases
            # What nobody has settled is found again, and by the same process.
            assert await second.scan(LONG) == []
            assert await first.scan(LONG) == found
            await first.acknowledge(found, LONG)
            assert await second.scan(LONG) == await first.scan(LONG) == []

    @on_both_ends
    async def test_of_many_that_look_at_once_one_is_told(self, ends: Ends, job_id: str) -> None:
        async with self._elected(ends) as (first, second):
            await self._let_run_out(ends, Lease(job_id, Run("aa", 1, "d1")))
            assert await second.scan(LONG) == []  # its client is not to be made ready by several
            sources = [second] * 5 + [first] * 5 + [second] * 5
            answers = await asyncio.gather(*(source.scan(LONG) for source in sources))
            assert [bool(found) for found in answers] == [source is first for source in sources]

    @on_both_ends
    async def test_another_takes_over_from_one_that_is_gone(self, ends: Ends, job_id: str) -> None:
        async with self._elected(ends) as (first, second):
            lease = Lease(job_id, Run("aa", 1, "d1"))
            await self._let_run_out(ends, lease)
            await self._put_back(second, PATIENCE / 2)
            assert await second.scan(LONG) == []
            await self._put_back(second, PATIENCE)
            assert [finding.lease for finding in await second.scan(LONG)] == [lease]
            # It was only slow. There is no way back as long as the other one looks.
            assert await first.scan(LONG) == []
            assert [finding.lease for finding in await second.scan(LONG)] == [lease]

    @on_both_ends
    async def test_who_takes_over_when_nobody_has_looked_for_long_waits_for_renewals(
        self, ends: Ends, job_id: str
    ) -> None:
        async with self._elected(ends) as (_, second):
            await self._let_run_out(ends, Lease(job_id, Run("aa", 1, "d1")))
            await self._put_back(second, LONG.lease)
            for _ in range(3):
                assert await second.scan(LONG) == []

    @asynccontextmanager
    async def _elected(self, ends: Ends) -> AsyncIterator[tuple[RedisSource, RedisSource]]:
        """Two processes, the first of which has been looking after leases for long."""
        first, other = ends.source, open_manager(ends.url)
        assert isinstance(first, RedisSource)
        assert isinstance(other.source, RedisSource)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(redis_source, "TAKE_OVER", PATIENCE)
                await self._forget(first)
                assert await first.scan(LONG) == []
                await first.client.hset(NAMES.watch, "since", 0)
                yield first, other.source
        finally:
            await self._forget(first)
            await other.aclose()

    async def _forget(self, source: RedisSource) -> None:
        for key in (NAMES.watch, NAMES.running, NAMES.stalled):
            await source.client.delete(key)

    async def _let_run_out(self, ends: Ends, lease: Lease) -> None:
        assert isinstance(ends.publisher, SupportsLeaseRenewal)
        await asyncio.to_thread(ends.publisher.renew, [lease], 0)

    async def _put_back(self, source: RedisSource, seconds: float) -> None:
        """Let the last look have been so much longer ago."""
        await source.client.hincrbyfloat(NAMES.watch, "at", -seconds)


class TestMemory(LeaseContract, RevocationContract):
    @pytest.fixture
    def transport_url(self) -> str:
        return f"memory://{new_id()}"


class RedisContract(InterruptionContract):
    """Its connections are cut, of every kind."""

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
    async def test_nothing_is_kept_of_jobs_that_were_left(self, ends: Ends, job_id: str) -> None:
        source = ends.source
        assert isinstance(source, RedisSource)

        def forgotten() -> bool:
            kept = source._jobs, source._unsubscribing, source._confirmations, source._unconfirmed
            return not any(kept)

        for some in [job_id, *(new_job_id() for _ in range(20)), job_id]:
            await source.subscribe(some)
            await source.unsubscribe(some)
        await eventually(forgotten, "source that has forgotten all of them")
        # Whatever the server has still to say of them changes nothing.
        await source.subscribe(job_id)
        await ends.publish(log(job_id))
        await ends.wait_received(1)
        await source.unsubscribe(job_id)
        await eventually(forgotten, "source that has forgotten it again")


class TestValkey(RedisContract, LeaseContract, ElectionContract, RevocationContract):
    @pytest.fixture
    def server(self, valkey: Valkey) -> Valkey:
        return valkey

    async def test_what_is_no_lease_is_removed_and_hides_nothing(self, transport_url: str) -> None:
        """Somebody else's, or another version's."""
        manager, publisher = open_manager(transport_url), open_publisher(transport_url)
        assert isinstance(publisher, SupportsLeaseRenewal)
        assert isinstance(manager.source, SupportsLeaseMonitoring)
        lease = Lease(new_id(), Run("aa", 1, "d1"))
        terms = LeaseTimeouts(lease=0.6, lost_after=60)
        found: list[Finding] = []
        with Redis.from_url(transport_url) as client:
            client.zadd(NAMES.running, {"somebody else": 1})
            await asyncio.to_thread(publisher.renew, [lease], 0.1)
            while not found:
                found += await manager.source.scan(terms)
            assert [finding.lease for finding in found] == [lease]
            assert client.zrange(NAMES.running, 0, -1) == [str(lease).encode()]
        await asyncio.to_thread(publisher.release, [lease])
        await asyncio.to_thread(publisher.close)
        await manager.aclose()

    async def test_leases_run_out_after_the_clock_of_the_server_was_set_back(
        self, transport_url: str
    ) -> None:
        """What is there then is what a clock that was an hour ahead has left."""
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
            assert time.monotonic() < deadline, f"there was only {found}"
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
        # In a database of its own: a Socket.IO process of other tests may look after leases.
        return server.url.removesuffix("/0") + "/1"


@pytest.fixture(scope="module")
def redis_7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with started_servers(RedisProcess(tmp_path_factory.mktemp("a"), binary=redis_server())) as it:
        yield it


class TestRedis(RedisContract):
    @pytest.fixture
    def server(self, redis_7: RedisProcess) -> RedisProcess:
        return redis_7


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    with started_servers(TlsRedis(tmp_path_factory.mktemp("tls"))) as it:
        yield it


class TestTls(RedisContract):
    @pytest.fixture
    def server(self, tls_redis: TlsRedis) -> TlsRedis:
        return tls_redis


@pytest.fixture(scope="module")
def unix_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    folder = tmp_path_factory.mktemp("u")
    with started_servers(RedisProcess(folder, "--unixsocket", str(folder / "r.sock"))) as it:
        yield it


class TestUnixSocket(RedisContract):
    @pytest.fixture
    def server(self, unix_redis: RedisProcess) -> RedisProcess:
        return unix_redis

    @pytest.fixture
    def transport_url(self, server: RedisProcess) -> str:
        return f"unix://{server.folder}/r.sock?db=0"


@pytest.fixture(scope="module")
def acl_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with started_servers(RedisProcess(tmp_path_factory.mktemp("acl"))) as it:
        for user, rules in acl_users().items():
            it.command("ACL", "SETUSER", user, "on", ">pass word", *rules)
        it.command("ACL", "SETUSER", "default", "-@pubsub", "+client|kill", "resetkeys")
        yield it


class TestAcl(RedisContract, LeaseContract, RevocationContract):
    """Users who may do no more than the documentation says: a server's and a worker's."""

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


async def test_a_worker_reads_no_history(acl_redis: RedisProcess, job_id: str) -> None:
    publisher = open_publisher(acl_url(acl_redis, "jobcast-worker"))
    publisher.publish([Outgoing.of(event) for event in (started(job_id), progress(job_id, 1))])
    source = open_manager(acl_url(acl_redis, "jobcast-worker")).source
    with pytest.raises(TransportUnavailable, match="permission"):
        await source.snapshot(job_id)
    await source.aclose()
    publisher.close()


@pytest.mark.parametrize("user", ["jobcast", "jobcast-worker"])
async def test_rights_end_where_the_prefix_does(acl_redis: RedisProcess, user: str) -> None:
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


async def test_a_worker_emits_to_rooms(acl_redis: RedisProcess) -> None:
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
    with started_servers(Sentinels(tmp_path_factory.mktemp("sentinels"))) as it:
        yield it


class TestSentinel(RedisContract):
    @pytest.fixture
    def server(self, sentinels: Sentinels) -> Sentinels:
        return sentinels

    def interrupt(self) -> None:
        """The master is gone, and a replica takes over."""
        self.servers[0].fail_over()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started_servers(Cluster(tmp_path_factory.mktemp("cluster"))) as it:
        yield it


class TestCluster(RedisContract, LeaseContract, ElectionContract, RevocationContract):
    @pytest.fixture
    def server(self, cluster: Cluster) -> Cluster:
        return cluster


async def test_a_cluster_needs_a_few_rights_more(cluster: Cluster, job_id: str) -> None:
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


class TestRabbitMQ(InterruptionContract, LeaseContract, RevocationContract):
    @pytest.fixture
    def transport_url(self, rabbitmq: RabbitMQ) -> str:
        self.server = rabbitmq
        return rabbitmq.url

    def interrupt(self) -> None:
        self.server.crash()
        self.server.start()
        self.server.ready()


CLUSTER_RIGHTS = "+cluster|slots", "+cluster|shards", "+command", "+readonly"


def test_the_documentation_names_the_rights_for_a_cluster() -> None:
    assert all(f"`{right}`" in GUIDE.read_text() for right in CLUSTER_RIGHTS)


def acl_users() -> dict[str, list[str]]:
    """The users that the documentation tells one to make."""
    users = {}
    for line in GUIDE.read_text().splitlines():
        if line.startswith("ACL SETUSER "):
            _, _, user, _, _, *rules = line.split()
            users[user] = rules
    return users


async def test_strangers_on_a_channel_do_no_harm(
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


async def test_a_failing_receiver_does_not_make_the_source_deaf(
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
    await eventually(lambda: resumes, "source that is back")
    publisher.publish([Outgoing.of(log(job_id))])
    await eventually(lambda: len(received) == 2, "message")
    assert "receiving from Redis failed" in caplog.text
    await source.aclose()
    publisher.close()


async def test_redis_keeps_a_jobs_keys_in_one_slot_for_a_bounded_time(
    valkey: Valkey, job_id: str
) -> None:
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=100))
    publisher.emit("job_log", {"level": "info", "message": "x"}, room=f"job_{job_id}")
    keys: list[Any] = valkey.command("KEYS", f"*{job_id}*")
    assert {key.decode() for key in keys} == {
        f"jobcast:{{{job_id}}}:state", f"jobcast:{{{job_id}}}:lines",
    }  # fmt: skip
    # A job that has not ended may be silent for long.
    assert all(valkey.command("TTL", key) > 80_000 for key in keys)
    publisher.emit("job_complete", {"result": 1}, room=f"job_{job_id}")
    assert all(0 < valkey.command("TTL", key) <= 60 for key in keys)
    publisher.close()


async def test_redis_that_forgot_the_script_is_taught_it_again(valkey: Valkey, job_id: str) -> None:
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(log(job_id))])
    valkey.command("SCRIPT", "FLUSH")
    publisher.publish([Outgoing.of(log(job_id)), Outgoing.of(log(job_id))])
    source = open_manager(valkey.url).source
    assert (await source.snapshot(job_id)).seq == 3
    await source.aclose()
    publisher.close()


async def test_a_job_whose_key_is_something_else_holds_up_no_other(
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
