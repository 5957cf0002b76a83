"""The container engine of this machine, and a Compose project on it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from jobcast.reference import write_project
from tests.support import ROOT, free_port, new_id, wait_for

BUILD_TIMEOUT = 1800.0  # seconds; a build downloads packages
START_TIMEOUT = 300.0  # seconds until every container is healthy
CHECK_PAUSE = 1.0  # seconds between two rounds of health checks


def answers(*argv: str) -> bool:
    """Return whether a command exists and succeeds."""
    if shutil.which(argv[0]) is None:
        return False
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def engine_and_compose() -> tuple[str, list[str]]:
    """Return the engine's command and that of Compose, which ``COMPOSE`` may replace."""
    if answers("docker", "compose", "version") and answers("docker", "info"):
        engine, compose = "docker", ["docker", "compose"]
    elif answers("podman", "info"):
        engine, compose = "podman", [sys.executable, "-m", "podman_compose"]
    else:
        raise RuntimeError("found neither Docker with its Compose plugin nor podman: install one")
    return engine, shlex.split(os.environ.get("COMPOSE", "")) or compose


def copy_checkout(target: Path) -> None:
    """Copy the files that git tracks or would track, with secrets of the copy's own."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for source in (ROOT / name for name in names.split("\0") if name):
        if source.is_file():
            copy = target / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    write_project(target / "project")
    shutil.move(target / "project" / "secrets", target / "secrets")


class Deployment:
    """The services of docker-compose.yml, built from a copy of the checkout."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine, self._compose = engine_and_compose()
        self.project = new_id("jobcast")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        copy_checkout(directory)

    @property
    def jwt_secret(self) -> str:
        return (self.directory / "secrets" / "jwt_secret").read_text().strip()

    def compose(self, *arguments: str, timeout: float = START_TIMEOUT) -> str:
        """Run a Compose command on the project. Returns its output."""
        return self._run([*self._compose, "-p", self.project, *arguments], timeout)

    def run(self, *arguments: str) -> str:
        """Run a command of the engine. Returns its output."""
        return self._run([self.engine, *arguments], START_TIMEOUT)

    def containers(self) -> list[str]:
        """Return the names of the project's containers."""
        label = f"label=com.docker.compose.project={self.project}"
        return self.run("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()

    def container(self, service: str) -> str:
        """Return the name of one of a service's containers."""
        mark = re.compile(rf"[_-]{service}[_-]\d+$")
        return next(name for name in self.containers() if mark.search(name))

    def health(self) -> dict[str, str]:
        """Return the health of each container: ``starting``, ``healthy`` or ``unhealthy``."""
        form = "{{.State.Health.Status}}"
        return {name: self.run("inspect", "--format", form, name).strip()
                for name in self.containers()}  # fmt: skip

    def wait_healthy(self, containers: int) -> None:
        """Wait until so many containers run and all of them are healthy."""

        def healthy() -> bool:
            health = self.health()
            return len(health) == containers and set(health.values()) == {"healthy"}

        wait_for(healthy, f"{containers} healthy containers", START_TIMEOUT)

    def remove(self) -> None:
        """Remove everything that the project has in the engine."""
        self.compose("down", "--volumes", "--rmi", "local")

    def _run(self, argv: list[str], timeout: float) -> str:
        done = subprocess.run(
            argv, cwd=self.directory, env={**os.environ, "JOBCAST_PORTS": str(self.port)},
            check=False, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(argv)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


@contextmanager
def health_checks(deployment: Deployment) -> Iterator[None]:
    """Run podman's health checks, which are systemd timers, on a machine without systemd."""
    if deployment.engine != "podman" or Path("/run/systemd/system").exists():
        yield
        return
    stopped = Event()

    def check() -> None:
        while not stopped.wait(CHECK_PAUSE):
            for name in deployment.containers():
                # An unhealthy container is a result, which `inspect` shows.
                subprocess.run(
                    ["podman", "healthcheck", "run", name], check=False, capture_output=True
                )

    thread = Thread(target=check, name="health checks")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
