"""Where the demonstration's login may run: what the command line and the environment say."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobcast.errors import SettingsError
from jobcast.settings import Settings
from realtime.console.demonstration import demonstration, is_loopback
from tests.console import make_demo
from tests.support import SECRET

SETTINGS = Settings(jwt_secret=SECRET)
PROGRAMS = ("/venv/bin/uvicorn", "/venv/lib/python3.13/site-packages/uvicorn/__main__.py")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "arguments",
    [[], ["--host", "127.0.0.1"], ["--host=::1"], ["--host", "localhost", "--reload"]],
    ids=str,
)
def test_it_may_run_for_this_machine_alone(
    tmp_path: Path, program: str, arguments: list[str]
) -> None:
    demo = make_demo(tmp_path / "demo", "its-queue")
    argv = [program, "realtime.app:app", *arguments]
    site = demonstration(SETTINGS, {"JOBCAST_DEMO": str(demo)}, argv)
    assert site is not None
    assert site.is_demonstration
    assert (site.directory, site.queue, site.token_seconds) == (demo, "its-queue", 300)


@pytest.mark.parametrize(
    "argv",
    [
        *([program, "realtime.app:app", "--host", "0.0.0.0"] for program in PROGRAMS),
        ["/venv/bin/uvicorn", "realtime.app:app", "--host", "localhost.example.com"],
        ["/venv/bin/uvicorn", "realtime.app:app", "--host", ""],
        ["/venv/bin/hypercorn", "realtime.app:app"],
        ["/venv/bin/granian", "--interface", "asgi", "realtime.app:app", "--host", "127.0.0.1"],
        ["-c"],
        [""],
    ],
    ids=str,
)
def test_nor_where_that_is_not_known(tmp_path: Path, argv: list[str]) -> None:
    environ = {"JOBCAST_DEMO": str(make_demo(tmp_path / "demo"))}
    with pytest.raises(SettingsError, match="may not be set where others can connect"):
        demonstration(SETTINGS, environ, argv)


def test_it_needs_a_secret_to_sign_with(tmp_path: Path) -> None:
    environ = {"JOBCAST_DEMO": str(make_demo(tmp_path / "demo"))}
    settings = Settings(jwks_url="https://auth.example.com/jwks.json")
    with pytest.raises(SettingsError, match="JOBCAST_JWT_SECRET"):
        demonstration(settings, environ, [PROGRAMS[0], "realtime.app:app"])


def test_what_is_this_machine() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    others = [None, "", "0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "127.0.0.1.nip.io"]
    assert not any(map(is_loopback, others))
