"""The reference application: where it is, and how it becomes a project of one's own."""

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
# What only a project of one's own has: its name here, which is plain, and there.
EXTRAS: Final = {
    "README.md": "README.md",
    "requirements.txt": "requirements.txt",
    "gitignore": ".gitignore",
}

_HERE: Final = Path(__file__).resolve().parent


def reference_directory() -> Path:
    """The directory that has ``tasks``, ``worker`` and ``realtime``.

    Raises:
        JobcastError: there is none.
    """
    # A wheel carries it; in a checkout it is the root.
    for directory in (_HERE / "_reference", _HERE.parents[1]):
        if all((directory / part).exists() for part in PARTS):
            return directory
    raise JobcastError("the reference application is not there: reinstall jobcast")


def console_directory() -> Path:
    """Where the built page of the console is; in a checkout, once ``make console`` has made it."""
    return _HERE / "_console"


def write_project(directory: Path) -> list[str]:
    """Write the reference application into a directory, as the start of a project.

    Args:
        directory: is made if it does not exist.

    Returns:
        The names of what was written, relative to the directory.

    Raises:
        ProjectExists: the directory has something in it, or is none.
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
    _write_env(directory / ".env", jwt_secret)
    made = _write_secrets(directory / "secrets", jwt_secret)
    return sorted([*sources, ".env", *(str(path.relative_to(directory)) for path in made)])


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [
        file
        for file in path.rglob("*")
        if file.is_file() and not {"__pycache__", ".DS_Store"} & set(file.parts)
    ]


def _write_env(path: Path, jwt_secret: str) -> None:
    """Write the settings of a machine for development."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(
        f"JOBCAST_URL={DEFAULT_URL}\nJOBCAST_JWT_SECRET={jwt_secret}\n", encoding="utf-8"
    )


def _write_secrets(directory: Path, jwt_secret: str) -> list[Path]:
    """Write the secrets that docker-compose.yml mounts.

    Users of the containers read the files; on this machine the directory keeps others out.
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
