"""The reference application: its location, and its use as the start of a new project."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Final

from jobcast.errors import JobcastError, ProjectExists
from jobcast.settings import DEFAULT_URL

PARTS: Final = (
    "tasks", "worker", "realtime", "Procfile", "docker-compose.yml", "Dockerfile", ".dockerignore",
)  # fmt: skip
# Files that only a new project has: from the name in _project/ to the name in the project.
EXTRAS: Final = {
    "README.md": "README.md",
    "requirements.txt": "requirements.txt",
    "gitignore": ".gitignore",
}

_HERE: Final = Path(__file__).resolve().parent


def reference_directory() -> Path:
    """Return the directory that contains ``tasks``, ``worker`` and ``realtime``.

    Raises:
        JobcastError: the reference application is not installed.
    """
    # A wheel contains the application; in a checkout it is the root directory.
    for directory in (_HERE / "_reference", _HERE.parents[1]):
        if all((directory / part).exists() for part in PARTS):
            return directory
    raise JobcastError("the reference application is not there: reinstall jobcast")


def write_project(directory: Path) -> list[str]:
    """Write the reference application into a directory, as the start of a project.

    Args:
        directory: an empty directory; it is created if it does not exist.

    Returns:
        The paths of the written files, relative to the directory.

    Raises:
        ProjectExists: the path is not a directory, or the directory is not empty.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ProjectExists(directory)
    directory.mkdir(parents=True, exist_ok=True)
    reference = reference_directory()
    sources = {
        str(path.relative_to(reference)): path
        for part in PARTS
        for path in _files(reference / part)
    }
    sources |= {theirs: _HERE / "_project" / ours for ours, theirs in EXTRAS.items()}
    for name, source in sources.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, directory / name)
    jwt_secret = secrets.token_urlsafe(32)
    write_env(directory / ".env", jwt_secret)
    made = _write_secrets(directory / "secrets", jwt_secret)
    return sorted([*sources, ".env", *(str(path.relative_to(directory)) for path in made)])


def write_env(path: Path, jwt_secret: str | None = None) -> None:
    """Write the settings for a development machine, which only this user can read.

    Args:
        path: the file, which may not exist yet.
        jwt_secret: the secret that signs tokens; a new one by default.
    """
    secret = jwt_secret or secrets.token_urlsafe(32)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(f"JOBCAST_URL={DEFAULT_URL}\nJOBCAST_JWT_SECRET={secret}\n", encoding="utf-8")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [
        file
        for file in path.rglob("*")
        if file.is_file() and not {"__pycache__", ".DS_Store"} & set(file.parts)
    ]


def _write_secrets(directory: Path, jwt_secret: str) -> list[Path]:
    """Write the secrets that docker-compose.yml mounts.

    The files are world-readable, because the containers run as another user. The mode of the
    directory protects them on the host.
    """
    directory.mkdir(mode=0o700)
    password = secrets.token_urlsafe(32)
    contents = {
        "jwt_secret": jwt_secret,
        "valkey_password": password,
        "jobcast_url": f"redis://:{password}@redis:6379/0",
    }
    for name, content in contents.items():
        (directory / name).write_text(f"{content}\n", encoding="utf-8")
        (directory / name).chmod(0o644)
    return [directory / name for name in contents]
