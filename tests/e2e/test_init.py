"""The files of a new project, and its processes started as in its README."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobcast.errors import ProjectExists
from jobcast.reference import write_project
from jobcast.tokens import mint
from tests.conftest import Valkey
from tests.support import ROOT, TIMEOUT, Process, answers, following, free_port
from tests.support.process_mark import process_mark

SERVE = ["jobcast.cli", "serve", "realtime.app:app"]
SEND = """
import sys
from worker.app import app
from tasks.checksums import hash_tree
print(hash_tree.owned_by("alice").delay(sys.argv[1]).id)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    write_project(directory)
    return directory


def secret_of(project: Path) -> str:
    settings = (project / ".env").read_text()
    found = re.search(r"^JOBCAST_JWT_SECRET=(\S{43,})$", settings, re.MULTILINE)
    assert found is not None
    return found[1]


def send_job(project: Path, env: dict[str, str]) -> str:
    completed = subprocess.run(
        [sys.executable, "-c", SEND, project], cwd=project, check=True, text=True,
        stdout=subprocess.PIPE, env=os.environ | env,
    )  # fmt: skip
    return completed.stdout.strip()


def test_new_project_contains_the_expected_files(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "project"
    names = write_project(directory)
    written = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    assert names == sorted(written)
    assert {
        ".dockerignore", ".env", ".gitignore", "Dockerfile", "Procfile", "README.md",
        "docker-compose.yml", "requirements.txt", "worker/app.py", "worker/requirements.txt",
        "realtime/app.py", "realtime/requirements.txt", "tasks/__init__.py", "tasks/samples.py",
    } <= written  # fmt: skip
    assert not [name for name in written if "__pycache__" in name]
    assert (directory / "Procfile").read_text() == (ROOT / "Procfile").read_text()


def test_each_project_has_a_unique_secret_readable_only_by_its_owner(tmp_path: Path) -> None:
    secrets = set()
    for name in ("one", "two"):
        write_project(tmp_path / name)
        secrets.add(secret_of(tmp_path / name))
        assert stat.S_IMODE((tmp_path / name / ".env").stat().st_mode) == 0o600
        ignored = (tmp_path / name / ".gitignore").read_text().split()
        assert {".env", "secrets/"} <= set(ignored)
    assert len(secrets) == 2


def test_project_contains_the_secrets_of_its_containers(tmp_path: Path) -> None:
    write_project(tmp_path)
    directory = tmp_path / "secrets"
    values = {path.name: path.read_text().strip() for path in directory.iterdir()}
    assert values["jwt_secret"] == secret_of(tmp_path)
    assert values["jobcast_url"] == f"redis://:{values['valkey_password']}@redis:6379/0"
    assert len(values["valkey_password"]) >= 32
    compose = yaml.safe_load((tmp_path / "docker-compose.yml").read_text())
    files = {name: tmp_path / secret["file"] for name, secret in compose["secrets"].items()}
    assert files == {name: directory / name for name in values}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o644}


def test_empty_directory_is_accepted(tmp_path: Path) -> None:
    assert "Procfile" in write_project(tmp_path)


@pytest.mark.parametrize("existing", ["project/notes.txt", "project"])
def test_existing_files_are_not_overwritten(tmp_path: Path, existing: str) -> None:
    directory = tmp_path / "project"
    file = tmp_path / existing
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(ProjectExists, match="not an empty directory") as caught:
        write_project(directory)
    assert caught.value.directory == directory
    assert file.read_text() == "mine"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


async def test_processes_of_a_project_run_and_show_a_job(
    project: Path, own_valkey: Valkey, tmp_path: Path
) -> None:
    port = free_port()
    env_file = project / ".env"
    text = env_file.read_text().replace("redis://localhost:6379/0", own_valkey.url)
    env_file.write_text(f"{text}JOBCAST_PORT={port}\n")
    # As in an activated environment; all other settings come from .env.
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JOBCAST_URL": own_valkey.url,
    }
    with process_mark(project) as mark:
        honcho = Process(
            [sys.executable, "-m", "honcho", "start"],
            tmp_path / "honcho.log", env | mark.env, cwd=project,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        honcho.expect(lambda: answers(f"{url}/readyz"), "answer of /readyz")
        job_id = send_job(project, env)
        async with following(url, mint(secret_of(project), "alice")) as alice:
            assert (await alice.join(job_id))["ok"]
            end = await alice.transcript.end(job_id)
        assert end["result"]["files"] > 10, end
        honcho.expect(lambda: "disconnected" in honcho.log, "end of the connection in the log")
        for word in ("connected", f"joined {job_id}"):
            assert re.search(rf"INFO +{word}.* sub='alice'", honcho.log)
        honcho.stop()
        mark.wait_until_gone()


@pytest.mark.parametrize(
    ("argv", "env", "problem"),
    [
        (["uvicorn", "realtime.app:app"], {}, "JOBCAST_JWT_SECRET is not set"),
        (SERVE, {}, "JOBCAST_JWT_SECRET is not set"),
        (SERVE, {"JOBCAST_URL": "http://x"}, "JOBCAST_URL should be"),
        (["celery", "-A", "worker.app", "worker"], {"JOBCAST_URL": "http://x"}, "JOBCAST_URL"),
        (["celery", "-A", "worker.app", "worker"], {"JOBCAST_URL": "redis://h:x"}, "JOBCAST_URL"),
        (
            ["celery", "-A", "worker.app", "worker"],
            {"CELERY_RESULT_BACKEND": "nowhere://"},
            "CELERY_RESULT_BACKEND",
        ),
    ],
)
def test_invalid_setting_is_reported_in_one_line(
    project: Path, argv: list[str], env: dict[str, str], problem: str
) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", *argv], cwd=project, text=True, check=False, timeout=TIMEOUT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(project), **env},
    )  # fmt: skip
    assert completed.returncode != 0
    assert problem in completed.stdout
    assert len(completed.stdout.strip().splitlines()) == 1
