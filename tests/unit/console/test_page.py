"""The routes of the console's page."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.routing import Route

from jobcast.console.page import console_routes, page_routes
from jobcast.errors import JobcastError


def test_missing_page_is_reported_with_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(JobcastError, match=r"index\.html is missing.*`make console`"):
        page_routes(tmp_path)


def test_console_is_served_below_its_path_only(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    session = Route("/session", lambda _: None)
    redirect, mount = console_routes("/ops/jobs", ["token"], session, tmp_path)
    assert (redirect.path, mount.path) == ("/ops/jobs", "/ops/jobs")  # type: ignore[attr-defined]
