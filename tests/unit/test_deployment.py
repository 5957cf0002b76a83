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


SECRET = re.compile("URL|SECRET|KEY|PASSWORD|TOKEN")


def test_secrets_are_files() -> None:
    """A variable's value is shown by ``docker inspect``, and to every child of the process."""
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert variable.endswith("_FILE"), (name, variable)
                assert value == f"/run/secrets/{value.rpartition('/')[2]}"
                assert value.rpartition("/")[2] in service["secrets"]
        for secret in service["secrets"]:
            assert compose["secrets"][secret] == {"file": f"./secrets/{secret}"}
    assert "JOBCAST_JWT_SECRET_FILE" in services["realtime"]["environment"]
    assert not SECRET.search(dockerfile)


def test_a_service_is_given_no_secret_of_another() -> None:
    assert {name: set(service["secrets"]) for name, service in services.items()} == {
        "redis": {"valkey_password"},
        "worker": {"jobcast_url"},
        "realtime": {"jobcast_url", "jwt_secret"},
    }


@pytest.mark.parametrize("name", ["redis", *OURS])
def test_a_container_has_no_more_rights_than_it_needs(name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "network_mode", "pid"} & set(service)
    if "build" not in service:
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])


def test_valkey_asks_for_a_password_that_no_argument_shows() -> None:
    shell, option, script = services["redis"]["command"]
    assert (shell, option) == ("sh", "-c")
    first, *config = script.replace("$$", "$").splitlines()
    assert first == "exec valkey-server - <<END"
    assert "requirepass $(cat /run/secrets/valkey_password)" in config
    health = services["redis"]["healthcheck"]["test"][1]
    assert health.startswith("REDISCLI_AUTH=$$(cat /run/secrets/valkey_password) ")


def test_a_health_check_does_not_rely_on_the_shells_hostname() -> None:
    """dash does not set HOSTNAME, and not every container engine does."""
    for service in services.values():
        assert "$HOSTNAME" not in str(service["healthcheck"]["test"])
    assert "celery@$$(hostname)" in str(services["worker"]["healthcheck"]["test"])


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
    assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)  # Kubernetes knows no names
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

    for secret in (".env", ".env.local", ".git", ".venv", "secrets"):
        assert ignored(secret)
    # The wheel is built there from all of these.
    sources = ("src", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore")
    page = ("client", "client/console", "client/src", "client/package-lock.json", "protocol")
    for name in (*PARTS, *sources, *page):
        assert not ignored(name)
    # What is built there is built from these sources, and by packages of that machine.
    for name in ("client/node_modules", "client/dist", "src/jobcast/_console"):
        assert ignored(name)
