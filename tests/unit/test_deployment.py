"""The Procfile, docker-compose.yml and the Dockerfile say the same, and nothing careless."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml

from jobcast.reference import PARTS
from tests.support import ROOT

OURS = ("worker", "realtime")

compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
services: dict[str, dict[str, Any]] = compose["services"]
dockerfile = (ROOT / "Dockerfile").read_text()


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: shlex.split(command) for name, _, command in (li.partition(": ") for li in lines)}


def plain(command: str | list[str]) -> list[str]:
    """A command without the shell that a container needs to expand a variable."""
    words = shlex.split(command) if isinstance(command, str) else command
    words = [word.replace("$$", "$") for word in words]
    if words[:2] == ["sh", "-c"]:
        words = shlex.split(words[2].removeprefix("exec "))
    return words


def stages() -> dict[str, str]:
    """The stages of the Dockerfile by their names."""
    found = re.split(r"^FROM .* AS (\S+)$", dockerfile, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_the_services_are_the_processes_and_their_server() -> None:
    assert set(services) == {"redis", *OURS}
    assert set(procfile()) == set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_the_commands_are_the_same_everywhere(name: str) -> None:
    expected = procfile()[name]
    assert plain(services[name]["command"]) == expected
    command = re.search(r"^CMD (\[.*\])$", stages()[name], re.MULTILINE)
    assert command is not None
    assert plain(yaml.safe_load(command[1])) == expected


@pytest.mark.parametrize("name", ["redis", *OURS])
def test_every_service_is_looked_after(name: str) -> None:
    service = services[name]
    assert service["healthcheck"]["test"]
    assert service["init"] is True
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]


@pytest.mark.parametrize("name", OURS)
def test_the_processes_wait_for_a_healthy_server(name: str) -> None:
    assert services[name]["depends_on"]["redis"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", OURS)
def test_the_processes_can_be_scaled_on_their_own(name: str) -> None:
    service = services[name]
    assert "container_name" not in service
    for port in service.get("ports", []):
        published = port.rpartition(":")[0]
        assert re.search(r"\d+-\d+", published), f"{published} is for one replica"
    assert set(service["depends_on"]) == {"redis"}


def test_no_secret_has_a_default() -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("SECRET|KEY|PASSWORD|TOKEN", variable):
                assert re.fullmatch(rf"\$\{{{variable}:\?[^}}]+\}}", value), (name, variable)
    assert "JOBCAST_JWT_SECRET" in services["realtime"]["environment"]
    assert not re.search("SECRET|PASSWORD|TOKEN", dockerfile)


def test_images_are_pinned_to_a_major_version() -> None:
    for service in services.values():
        if "build" not in service:
            assert re.fullmatch(r"[\w/.-]+:\d+[\w.-]*", service["image"])
    assert re.search(r"^ARG PYTHON=3\.\d+$", dockerfile, re.MULTILINE)
    named = set(stages())
    for image in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE):
        assert image in named or image == "python:${PYTHON}-slim"


@pytest.mark.parametrize("name", OURS)
def test_an_image_has_its_own_packages_and_no_root(name: str) -> None:
    assert services[name]["build"]["target"] == name
    stage = stages()[name]
    other = OURS[1 - OURS.index(name)]
    assert re.search("^USER app$", stage, re.MULTILINE)
    assert f"COPY --from={name}-packages /venv /venv" in stage
    assert f"COPY {name}/requirements.txt ." in stages()[f"{name}-packages"]
    assert other not in stage + stages()[f"{name}-packages"]


def test_a_worker_installs_no_web_server() -> None:
    packages = {name: (ROOT / name / "requirements.txt").read_text().split() for name in OURS}
    assert packages == {"worker": ["jobcast", "pillow"], "realtime": ["jobcast[server]"]}


def test_what_goes_to_the_builder() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split()

    def ignored(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in patterns)

    for secret in (".env", ".env.local", ".git", ".venv"):
        assert ignored(secret)
    # The wheel is built there from all of these.
    sources = ("src", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore")
    page = ("client", "client/console", "client/src", "client/package-lock.json", "protocol")
    for name in (*PARTS, *sources, *page):
        assert not ignored(name)
    # What is built there is built from these sources, and by packages of that machine.
    for name in ("client/node_modules", "client/dist", "src/jobcast/_console"):
        assert ignored(name)
