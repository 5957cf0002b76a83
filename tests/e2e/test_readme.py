"""The README's code and commands, run unchanged in one project with real servers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.conftest import Valkey
from tests.e2e.documented import MINT, Page, Project, run_stock_script
from tests.support import ROOT

README = Page("README.md")
MAKE_DEMO, MAKE_TEST, WORKER, SERVE, TOKEN, WATCH = README.commands
(SCRIPT,) = README.code_blocks("js")

MAX_LINES = 120


def test_every_block_is_run_by_a_test() -> None:
    assert {language for language, _ in README.blocks} == {"sh", "python", "js"}
    assert set(README.modules) == {"tasks.py", "views.py"}
    assert len(README.modules) == len(README.code_blocks("python"))
    assert MINT in TOKEN
    # tests/e2e/test_demo.py runs the demo, and .ci/run runs the tests.
    assert (MAKE_DEMO, MAKE_TEST) == ("make demo", "make test")
    for target in ("demo", "test"):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_LINES


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("readme"), valkey, README.modules)
    with project.worker(WORKER), project.server(SERVE):
        yield project


def test_only_the_owner_can_watch_the_job(project: Project) -> None:
    job_id = project.run("import views; print(views.job_id)")
    watched = project.watch(WATCH, job_id, project.mint())
    assert watched.returncode == 0, watched.stdout
    assert "page 99 is done" in watched.stdout
    refused = project.watch(WATCH, job_id, project.mint("--sub", "mallory"))
    assert refused.returncode == 2
    assert "page" not in refused.stdout


@pytest.mark.usefixtures("package")
def test_page_follows_the_job(project: Project) -> None:
    job_id = project.run("import views; print(views.job_id)")
    lines = run_stock_script(SCRIPT, project.url, project.mint(), job_id)
    assert "info page 42 is done" in lines
    assert "100 converting" in lines
    assert lines[-1] == "done { pages: 100 }"
