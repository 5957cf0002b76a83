"""jobcast installs beside what projects have: every supported Celery, with its Redis extra."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import uv

from tests.support import TIMEOUT

ROOT = Path(__file__).parents[2]


def resolved(requirement: str, resolution: str, tmp_path: Path) -> dict[str, str]:
    """The versions that an installer chooses for jobcast and a requirement."""
    wanted = tmp_path / "wanted.in"
    wanted.write_text(f"jobcast[server,client] @ {ROOT.as_uri()}\n{requirement}\n")
    done = subprocess.run(
        [
            uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate",
            "--python-version=3.11", f"--resolution={resolution}", wanted,
        ],
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", done.stdout, re.MULTILINE))


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
@pytest.mark.parametrize("celery", ["5.5", "5.6", "5.7"])
def test_every_supported_celery_installs_with_its_redis_extra(
    celery: str, resolution: str, tmp_path: Path
) -> None:
    versions = resolved(f"celery[redis]=={celery}.*", resolution, tmp_path)
    assert versions["celery"].startswith(celery)
    assert version("5.2") <= version(versions["redis"]) < version("9")


@pytest.mark.parametrize("extra", ["sqs", "gevent", "msgpack"])
def test_other_extras_of_celery_install_too(extra: str, tmp_path: Path) -> None:
    assert "celery" in resolved(f"celery[{extra}]", "highest", tmp_path)
