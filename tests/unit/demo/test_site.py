"""The conditions under which the demo's login without a password is enabled."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobcast.demo.web.loopback import is_loopback
from jobcast.demo.web.site import load_site
from jobcast.errors import SettingsError
from jobcast.settings import SERVED_ON, Settings
from tests.support import SECRET
from tests.support.console import make_demo

SETTINGS = Settings(jwt_secret=SECRET)


def environ(demo: Path, served_on: str | None = "127.0.0.1") -> dict[str, str]:
    """Return the environment in which `jobcast serve` runs the application."""
    served = {} if served_on is None else {SERVED_ON: served_on}
    return {"JOBCAST_DEMO": str(demo), **served}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_demo_runs_on_a_loopback_address(tmp_path: Path, host: str) -> None:
    demo = make_demo(tmp_path / "demo", "its-queue")
    site = load_site(SETTINGS, environ(demo, host))
    assert (site.directory, site.queue, site.token_seconds) == (demo, "its-queue", 300)


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost.example.com", "", None])
def test_demo_is_refused_where_others_can_connect(tmp_path: Path, host: str | None) -> None:
    demo = make_demo(tmp_path / "demo")
    with pytest.raises(SettingsError, match="may not be set where others can connect"):
        load_site(SETTINGS, environ(demo, host))


def test_demo_requires_a_signing_secret(tmp_path: Path) -> None:
    settings = Settings(jwks_url="https://auth.example.com/jwks.json")
    with pytest.raises(SettingsError, match="JOBCAST_JWT_SECRET"):
        load_site(settings, environ(make_demo(tmp_path / "demo")))


def test_is_loopback_accepts_only_loopback_hosts() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    others = [None, "", "0.0.0.0", "::", "10.0.0.1", "localhost.example.com", "127.0.0.1.nip.io"]
    assert not any(map(is_loopback, others))
