"""The route of the element ``<jobcast-job>``."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from jobcast.realtime import create_app
from jobcast.realtime.element_route import element_route
from jobcast.settings import Settings


async def get(app: Starlette, path: str = "/jobcast.js", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await client.get(path, headers=headers)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "jobcast.js"
    path.write_text("const name = 'é';")
    return path


async def test_script_is_public_and_revalidated(script: Path) -> None:
    app = Starlette(routes=[element_route(script)])
    answer = await get(app)
    assert answer.status_code == 200
    assert answer.text == script.read_text()
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cache-Control"] == "no-cache"
    unchanged = await get(app, **{"If-None-Match": f"W/{answer.headers['ETag']}"})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["ETag"] == answer.headers["ETag"]
    assert (await get(app, **{"If-None-Match": '"another"'})).status_code == 200


async def test_missing_script_names_the_command_that_builds_it(tmp_path: Path) -> None:
    answer = await get(Starlette(routes=[element_route(tmp_path / "missing")]))
    assert answer.status_code == 503
    assert "make element" in answer.text


@pytest.mark.parametrize(("http_api", "expected"), [(True, {200, 503}), (False, {404})])
async def test_server_has_the_script_below_its_prefix_with_the_http_interface(
    http_api: bool, expected: set[int]
) -> None:
    settings = Settings(
        url="memory://", jwt_secret="x" * 32, http_api=http_api, path_prefix="/jobs-server"
    )
    answer = await get(create_app(settings), "/jobs-server/jobcast.js")
    assert answer.status_code in expected
