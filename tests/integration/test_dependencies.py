"""jobcast installs together with every supported Celery and its Redis extra."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import uv

from tests.support import TIMEOUT

ROOT = Path(__file__).parents[2]


def resolve(requirement: str, resolution: str, tmp_path: Path) -> dict[str, str]:
    """Return the versions that uv selects for jobcast and another requirement."""
    requirements = tmp_path / "requirements.in"
    requirements.write_text(f"jobcast[server,client] @ {ROOT.as_uri()}\n{requirement}\n")
    done = subprocess.run(
        [
            uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate",
            "--python-version=3.11", f"--resolution={resolution}", requirements,
        ],
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", done.stdout, re.MULTILINE))


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
@pytest.mark.parametrize("celery", ["5.5", "5.6", "5.7"])
def test_every_supported_celery_resolves_with_its_redis_extra(
    celery: str, resolution: str, tmp_path: Path
) -> None:
    versions = resolve(f"celery[redis]=={celery}.*", resolution, tmp_path)
    assert versions["celery"].startswith(celery)
    assert version("5.2") <= version(versions["redis"]) < version("9")


@pytest.mark.parametrize("extra", ["sqs", "gevent", "msgpack"])
def test_other_extras_of_celery_resolve(extra: str, tmp_path: Path) -> None:
    assert "celery" in resolve(f"celery[{extra}]", "highest", tmp_path)
