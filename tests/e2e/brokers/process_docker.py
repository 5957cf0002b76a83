"""A Docker client whose containers are local processes.

It implements only the calls of pytest-celery and pytest-docker-tools, so that their fixtures run
unchanged without a Docker engine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from tests.support import Process, free_port, new_id
from tests.support.ports import is_open
from tests.support.rabbitmq import RabbitMQ
from tests.support.redis_family import redis_server

STOP_TIMEOUT = 30  # seconds


class Service(Protocol):
    """A process in a container."""

    def start(self) -> None: ...
    def kill(self) -> None: ...


class Container:
    """The used subset of ``docker.models.containers.Container``."""

    def __init__(
        self, root: Path, image: str, command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None, ports: Mapping[str, int | None] | None = None,
        volumes: Mapping[str, Mapping[str, str]] | None = None,
        labels: Mapping[str, str] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        self.id = new_id("container")
        self.name = self.id
        self.image = image
        self.command = list(command)
        self.env = dict(environment or {})
        self.folder = root / self.id
        self.folder.mkdir()
        self.binds = {volume["bind"]: root / name for name, volume in (volumes or {}).items()}
        self.ports = {inner: outer or free_port() for inner, outer in (ports or {}).items()}
        self.status = "created"
        self._service: Service | None = None
        self._labels = dict(labels or {})

    @property
    def attrs(self) -> dict[str, Any]:
        port = next(iter(self.ports.values()), None)
        published = {
            inner: [{"HostIp": "127.0.0.1", "HostPort": str(outer)}]
            for inner, outer in self.ports.items()
        }
        return {
            # With the port in its name, every local process can use the hostname as an address.
            "Config": {
                "Hostname": "127.0.0.1" if port is None else f"127.0.0.1:{port}",
                "Labels": self._labels,
                "Env": [f"{key}={value}" for key, value in self.env.items()],
            },
            "HostConfig": {"PortBindings": {inner: [] for inner in self.ports}},
            "NetworkSettings": {
                "Networks": {"local": {"IPAddress": "127.0.0.1"}}, "Ports": published,
            },
        }  # fmt: skip

    @property
    def log_path(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        if self._service is None:
            self._service = _kind_of(self.image)(self)
        else:
            self._service.start()
        self.status = "running"

    def kill(self, signal: str | int = signal.SIGKILL) -> None:
        if isinstance(self._service, Process) and signal not in ("SIGKILL", 9):
            number = signal if isinstance(signal, int) else _number(signal)
            self._service.popen.send_signal(number)
        elif self._service is not None:
            self._service.kill()
            self.status = "exited"

    def stop(self, timeout: int = STOP_TIMEOUT, **_: Any) -> None:
        if isinstance(self._service, Process) and self._service.popen.poll() is None:
            self._service.stop(timeout)
        self.kill()

    def restart(self, timeout: int = STOP_TIMEOUT, **_: Any) -> None:
        self.stop(timeout)
        self.start()

    def remove(self, **_: Any) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def reload(self) -> None:
        if isinstance(self._service, Process) and self._service.popen.poll() is not None:
            self.status = "exited"

    def logs(self, **_: Any) -> bytes:
        # RabbitMQ writes its log to separate files.
        logs = [self.log_path, *sorted(self.folder.glob("logs/*.log"))]
        return b"".join(path.read_bytes() for path in logs if path.exists())

    def exec_run(self, cmd: str | Sequence[str], **_: Any) -> tuple[int, bytes]:
        if "/proc/net/" in str(cmd):
            # The caller expects the listening ports in the kernel's format.
            listening = [
                f" 0: 00000000:{int(inner.split('/')[0]):04X} 0 0A"
                for inner, outer in self.ports.items() if is_open(outer)
            ]  # fmt: skip
            return 0, "\n".join(listening).encode()
        line = self._on_host(cmd if isinstance(cmd, str) else " ".join(cmd))
        completed = subprocess.run(
            line.replace("python ", f"{sys.executable} ", 1), shell=True, cwd=self.work_folder,
            env={**os.environ, **self.env}, check=False, capture_output=True,
        )  # fmt: skip
        return completed.returncode, completed.stdout + completed.stderr

    def put_archive(self, path: str, data: Any) -> bool:
        with tarfile.open(fileobj=BytesIO(data.read())) as archive:
            archive.extractall(self._on_host(path), filter="data")
        return True

    @property
    def work_folder(self) -> Path:
        return next(iter(self.binds.values()), self.folder)

    def _on_host(self, text: str) -> str:
        for inside, outside in self.binds.items():
            text = text.replace(inside, str(outside))
        return text


def _redis(container: Container) -> Process:
    port = str(container.ports["6379/tcp"])
    options = ["--port", port, "--bind", "127.0.0.1", "--dir", str(container.folder)]
    return Process([redis_server(), *container.command[1:], *options], container.log_path)


def _rabbitmq(container: Container) -> RabbitMQ:
    return RabbitMQ(container.folder, container.ports["5672/tcp"])


def _worker(container: Container) -> Process:
    argv = [word.replace("%h", container.id) for word in container.command]
    env = {key: value.replace("/app", str(container.work_folder))
           for key, value in container.env.items()}  # fmt: skip
    return Process(
        [sys.executable, "-m", *argv], container.log_path, env, cwd=container.work_folder
    )


KINDS: Mapping[str, Callable[[Container], Service]] = {
    "redis": _redis,
    "rabbitmq": _rabbitmq,
    "jobcast/tests/worker": _worker,
}


def _kind_of(image: str) -> Callable[[Container], Service]:
    return next(kind for name, kind in KINDS.items() if image.startswith(name))


def _number(name: str) -> int:
    return getattr(signal, name).value  # type: ignore[no-any-return]


class ProcessDocker:
    """The used subset of ``docker.DockerClient``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._all: list[Container] = []
        self.containers = SimpleNamespace(
            run=self._run, create=self._create, list=lambda **_: list(self._all)
        )
        self.networks = SimpleNamespace(create=self._network)
        self.volumes = SimpleNamespace(create=self._volume)
        self.images = SimpleNamespace(
            build=lambda tag="scratch", **_: (SimpleNamespace(id=tag), iter(()))
        )

    def close(self) -> None:
        for container in self._all:
            container.remove()

    def _create(self, image: str, **options: Any) -> Container:
        self._all.append(Container(self._root, image, **options))
        return self._all[-1]

    def _run(self, image: str, **options: Any) -> Container:
        container = self._create(image, **options)
        container.start()
        return container

    def _network(self, name: str, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(name=name, remove=lambda: None)

    def _volume(self, name: str, **_: Any) -> SimpleNamespace:
        folder = self._root / name
        folder.mkdir()
        return SimpleNamespace(
            name=name, remove=lambda *_: shutil.rmtree(folder, ignore_errors=True)
        )
