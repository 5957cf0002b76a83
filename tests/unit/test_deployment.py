"""The Procfile, docker-compose.yml and the Dockerfile agree and follow security practices."""

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
    """Return a command without the shell that expands variables in a container."""
    words = shlex.split(command) if isinstance(command, str) else command
    words = [word.replace("$$", "$") for word in words]
    if words[:2] == ["sh", "-c"]:
        words = shlex.split(words[2].removeprefix("exec "))
    return words


def stages() -> dict[str, str]:
    """Return the stages of the Dockerfile by name."""
    found = re.split(r"^FROM .* AS (\S+)$", dockerfile, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_compose_and_procfile_have_the_same_processes() -> None:
    assert set(services) == {"redis", *OURS}
    assert set(procfile()) == set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_commands_match_the_procfile(name: str) -> None:
    expected = procfile()[name]
    assert plain(services[name]["command"]) == expected
    command = re.search(r"^CMD (\[.*\])$", stages()[name], re.MULTILINE)
    assert command is not None
    assert plain(yaml.safe_load(command[1])) == expected


@pytest.mark.parametrize("name", ["redis", *OURS])
def test_every_service_has_health_check_and_restart_policy(name: str) -> None:
    service = services[name]
    assert service["healthcheck"]["test"]
    assert service["init"] is True
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]


@pytest.mark.parametrize("name", OURS)
def test_processes_wait_for_a_healthy_redis(name: str) -> None:
    assert services[name]["depends_on"]["redis"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", OURS)
def test_processes_can_be_scaled_independently(name: str) -> None:
    service = services[name]
    assert "container_name" not in service
    for port in service.get("ports", []):
        published = port.rpartition(":")[0]
        assert re.search(r"\d+-\d+", published), f"{published} is for one replica"
    assert set(service["depends_on"]) == {"redis"}


SECRET = re.compile("URL|SECRET|KEY|PASSWORD|TOKEN")


def test_compose_passes_secrets_as_files() -> None:
    """Values of variables are visible in ``docker inspect`` and to every child process."""
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


def test_services_receive_only_their_own_secrets() -> None:
    assert {name: set(service["secrets"]) for name, service in services.items()} == {
        "redis": {"valkey_password"},
        "worker": {"jobcast_url"},
        "realtime": {"jobcast_url", "jwt_secret"},
    }


@pytest.mark.parametrize("name", ["redis", *OURS])
def test_containers_have_minimal_privileges(name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "network_mode", "pid"} & set(service)
    if "build" not in service:
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])


def test_valkey_password_is_not_in_its_arguments() -> None:
    shell, option, script = services["redis"]["command"]
    assert (shell, option) == ("sh", "-c")
    first, *config = script.replace("$$", "$").splitlines()
    assert first == "exec valkey-server - <<END"
    assert "requirepass $(cat /run/secrets/valkey_password)" in config
    health = services["redis"]["healthcheck"]["test"][1]
    assert health.startswith("REDISCLI_AUTH=$$(cat /run/secrets/valkey_password) ")


def test_health_checks_do_not_use_hostname_variable() -> None:
    """Neither dash nor every container engine sets HOSTNAME."""
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
def test_images_have_their_own_packages_and_run_unprivileged(name: str) -> None:
    assert services[name]["build"]["target"] == name
    stage = stages()[name]
    other = OURS[1 - OURS.index(name)]
    # Numeric, because Kubernetes cannot verify that a user given by name is not root.
    assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
    assert f"COPY --from={name}-packages /venv /venv" in stage
    assert f"COPY {name}/requirements.txt ." in stages()[f"{name}-packages"]
    assert other not in stage + stages()[f"{name}-packages"]


def test_worker_requirements_have_no_web_server() -> None:
    packages = {name: (ROOT / name / "requirements.txt").read_text().split() for name in OURS}
    assert packages == {"worker": ["jobcast", "pillow"], "realtime": ["jobcast[server]"]}


def test_build_context_has_sources_and_no_secrets() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split()

    def ignored(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in patterns)

    for secret in (".env", ".env.local", ".git", ".venv", "secrets"):
        assert ignored(secret)
    # The image build needs all of these to build the wheel.
    sources = ("src", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore")
    page = ("client", "client/console", "client/src", "client/package-lock.json", "protocol")
    for name in (*PARTS, *sources, *page):
        assert not ignored(name)
    # The image build must not reuse the host's packages and build results.
    for name in ("client/node_modules", "client/dist", "src/jobcast/_console"):
        assert ignored(name)
