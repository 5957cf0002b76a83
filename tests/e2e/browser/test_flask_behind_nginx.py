"""Flask under gunicorn, behind nginx and below a path, as docs/how-to/flask.md describes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.conftest import Valkey
from tests.e2e.documented import Page, Project
from tests.e2e.test_proxies import nginx
from tests.support import SECRET, TIMEOUT, Process, answers, free_port, running

TUTORIAL = Page("docs/tutorial/flask.md")
GUIDE = Page("docs/how-to/flask.md")
SERVE, GUNICORN = GUIDE.code_blocks("sh")
(NGINX,) = GUIDE.code_blocks("nginx")
(HTML,) = TUTORIAL.code_blocks("html")
WORKER = "celery -A tasks worker --loglevel=info"

expect.set_options(timeout=1000 * TIMEOUT)


@pytest.fixture
def project(tmp_path: Path, own_valkey: Valkey) -> Project:
    modules = {**TUTORIAL.modules, **GUIDE.modules, "templates/index.html": HTML}
    project = Project(tmp_path, own_valkey, modules)
    project.env["JOBCAST_JWT_SECRET"] = SECRET
    return project


@contextmanager
def site(project: Project) -> Iterator[str]:
    """Run the worker, the server, gunicorn and nginx. Return the URL of nginx."""
    backend, front = free_port(), free_port()
    folder = project.folder / "nginx"
    folder.mkdir()
    with (
        project.worker(WORKER),
        running(project.shell(SERVE, "serve.log")) as server,
        running(project.shell(on_port(GUNICORN, backend), "gunicorn.log")) as gunicorn,
        running(nginx(on_port(NGINX, backend), front, project.port, folder)) as proxy,
    ):
        url = f"http://127.0.0.1:{front}"
        expect_answer(server, f"{url}/tools/live/readyz")
        expect_answer(gunicorn, f"{url}/tools/")
        assert proxy.popen.poll() is None
        yield url


def on_port(text: str, port: int) -> str:
    assert "127.0.0.1:5000" in text
    return text.replace("127.0.0.1:5000", f"127.0.0.1:{port}")


def expect_answer(process: Process, url: str) -> None:
    process.expect(lambda: answers(url), f"answer of {url}")


def test_page_below_a_prefix_follows_a_job_until_the_sign_out(
    project: Project, browser: Browser
) -> None:
    with site(project) as url:
        context = browser.new_context()
        context.set_default_timeout(1000 * TIMEOUT)
        tab, other = context.new_page(), context.new_page()
        tab.goto(f"{url}/tools/")
        tab.get_by_label("Name").fill("alice")
        tab.get_by_role("button", name="Sign in").click()
        tab.get_by_role("button", name="Convert").click()
        job: Locator = tab.locator("jobcast-job")
        assert job.get_attribute("token-url") == "/tools/jobcast/token"
        expect(job).to_have_attribute("status", "complete")
        expect(tab.get_by_role("log")).to_contain_text("page 99 is done")
        other.goto(f"{url}/tools/")
        tab.get_by_role("button", name="Convert").click()
        expect(job).to_have_attribute("status", "started")
        other.get_by_role("button", name="Sign out").click()
        expect(job).to_have_attribute("status", "refused")
        context.close()
