"""The README's code is run as it stands there, in one project, against real servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Valkey
from tests.e2e.stock import FOLDER as STOCK_CLIENT
from tests.e2e.stock import command
from tests.support import (
    ROOT,
    SECRET,
    TIMEOUT,
    Process,
    answers,
    free_port,
    new_id,
    running,
    wait_for,
)

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
MODULES = {
    match[1]: code
    for language, code in BLOCKS
    if language == "python" and (match := re.match(r"# (\w+\.py)\n", code))
}
COMMANDS = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]
SCRIPT, CLIENT_SCRIPT = [code for language, code in BLOCKS if language == "js"]

# Commands that other tests run, and what they have to be.
ELSEWHERE = {
    "make demo": "tests/e2e/test_demo.py",
    "make test": ".ci/run",
}


def test_every_block_is_run_by_a_test() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python", "js"}
    assert len(MODULES) == sum(language == "python" for language, _ in BLOCKS)
    assert set(MODULES) == {
        "tasks.py", "views.py", "more.py", "discreet.py", "nightly.py", "server.py", "elsewhere.py",
    }  # fmt: skip
    assert [c for c in COMMANDS if c not in ELSEWHERE] == [
        "celery -A tasks worker --loglevel=info",
        'JOBCAST_JWT_SECRET="$SECRET" jobcast serve',
        'export JOBCAST_TOKEN=$(JOBCAST_JWT_SECRET="$SECRET" jobcast token --sub alice)',
        'jobcast watch "$JOB_ID"',
    ]
    for name, path in ELSEWHERE.items():
        assert (ROOT / path).exists()
        target = name.removeprefix("make ")
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()


class Project:
    """A folder with the README's modules, and its processes."""

    def __init__(self, folder: Path, valkey: Valkey) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.broker = valkey.url
        self.env = {
            "JOBCAST_URL": valkey.url,
            "JOBCAST_PORT": str(self.port),
            "SECRET": SECRET,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # A queue of its own: other tests have workers on the same broker.
            "QUEUE": new_id("queue"),
        }
        for name, code in MODULES.items():
            own = code.replace("redis://localhost:6379/0", valkey.url)
            if name == "tasks.py":
                own += f"\napp.conf.task_default_queue = {self.env['QUEUE']!r}\n"
                own += "app.conf.result_backend = app.conf.broker_url\n"
            (folder / name).write_text(own)

    def shell(self, line: str, log: str) -> Process:
        return Process(["bash", "-c", line], self.folder / log, self.env, self.folder)

    def run(self, code: str, **env: str) -> str:
        """Run Python in the project, and return what it prints."""
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], cwd=self.folder, text=True, check=True,
            env={**os.environ, **self.env, **env}, stdout=subprocess.PIPE, timeout=TIMEOUT,
        )  # fmt: skip
        return result.stdout.strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("readme"), valkey)
    worker, serve = COMMANDS[2], COMMANDS[3]
    with (
        running(project.shell(f"{worker} -I more,discreet -c 2", "worker.log")) as celery,
        running(project.shell(serve, "server.log")) as server,
    ):
        celery.expect(lambda: " ready." in celery.log, "ready worker")
        server.expect(lambda: answers(f"{project.url}/readyz"), "ready server")
        yield project


def mint(project: Project, *arguments: str) -> str:
    """A token by the README's command, without ``export``."""
    line = COMMANDS[4].removeprefix("export JOBCAST_TOKEN=$(").removesuffix(")")
    result = subprocess.run(
        ["bash", "-c", " ".join([line, *arguments])], text=True, check=True, timeout=TIMEOUT,
        env={**os.environ, **project.env, "JOBCAST_JWT_SECRET": SECRET}, stdout=subprocess.PIPE,
    )  # fmt: skip
    return result.stdout.strip()


def watch(project: Project, job_id: str, token: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"{COMMANDS[5]} --url {project.url}"], text=True, check=False,
        env={**os.environ, **project.env, "JOBCAST_TOKEN": token, "JOB_ID": job_id},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
    )  # fmt: skip


def test_the_task_is_sent_and_watched(project: Project) -> None:
    job_id = project.run("import views; print(views.job_id)")
    watched = watch(project, job_id, mint(project))
    assert watched.returncode == 0, watched.stdout
    assert "page 99 is done" in watched.stdout
    refused = watch(project, job_id, mint(project, "--sub", "mallory"))
    assert refused.returncode == 2
    assert "page" not in refused.stdout


@pytest.mark.usefixtures("package")
def test_the_page_follows_it(project: Project, tmp_path: Path) -> None:
    job_id = project.run("import views; print(views.job_id)")
    script = STOCK_CLIENT / f".readme-{job_id}.mjs"
    script.write_text(
        SCRIPT.replace(
            "\n\n",
            f"\nconst url = '{project.url}', token = '{mint(project)}', job_id = '{job_id}';\n"
            "setTimeout(() => process.exit(2), 30000);\n",
            1,
        )
        + "for (const end of ['job_complete', 'job_error'])\n"
        + "  socket.on(end, () => process.exit(0));\n"
    )
    try:
        result = subprocess.run(
            [command("node"), str(script)], text=True, timeout=TIMEOUT, check=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
    finally:
        script.unlink()
    lines = result.stdout.splitlines()
    assert "info page 42 is done" in lines
    assert "100 converting" in lines
    assert lines[-1] == "done { pages: 100 }"


def test_the_page_follows_it_with_the_package(project: Project, tmp_path: Path) -> None:
    job_id = project.run("import views; print(views.job_id)")
    installed = tmp_path / "node_modules" / "@jobcast" / "client"
    installed.parent.mkdir(parents=True)
    installed.symlink_to(ROOT / "client")
    script = tmp_path / "page.mjs"
    script.write_text(
        CLIENT_SCRIPT.replace(
            "\n\n",
            f"\nconst url = '{project.url}', token = '{mint(project)}', job_id = '{job_id}';\n",
            1,
        )
        + "client.close();\n"
    )
    result = subprocess.run(
        [command("node"), str(script)],
        text=True,
        timeout=TIMEOUT,
        check=True,
        stdout=subprocess.PIPE,
    )
    lines = result.stdout.splitlines()
    assert "done { pages: 100 }" in lines
    assert any(re.match(r"(started|complete) \d+ converting page \d+ is done", li) for li in lines)


def test_what_a_task_can_say(project: Project) -> None:
    job_id = project.run(
        "import more; print(more.report.owned_by('alice').delay(['x', 'y']).id); more.parse('x')"
    )
    watched = watch(project, job_id, mint(project))
    assert watched.returncode == 0, watched.stdout
    for line in ("read x", "read y", "one page was empty", "what logging says in a task is shown"):
        assert line in watched.stdout


def test_results_are_the_authors_choice(project: Project) -> None:
    send = "import discreet; print(discreet.import_rows.owned_by('alice').delay({}).id)"
    good = watch(project, project.run(send.format(["a", "secret"])), mint(project))
    assert good.returncode == 0
    assert "SECRET" not in good.stdout
    bad = watch(project, project.run(send.format([1])), mint(project))
    assert bad.returncode == 1
    assert "The import failed. We were told." in bad.stdout
    assert "AttributeError" in bad.stdout


def test_work_that_is_no_task(project: Project) -> None:
    project.run("import nightly")
    watched = watch(project, "nightly-reindex", mint(project))
    assert watched.returncode == 0
    for shard in "abc":
        assert f"shard {shard}" in watched.stdout


def test_another_process_speaks_to_followers(project: Project) -> None:
    project.run(
        "import elsewhere; elsewhere.manager.emit('job_complete', {'result': 1}, room='job_42')"
    )
    watched = watch(project, "42", mint(project, "--job", "42"))
    assert watched.returncode == 0
    assert "almost there" in watched.stdout


def test_a_server_that_is_there_already(project: Project) -> None:
    port = free_port()
    line = f"JOBCAST_JWT_SECRET=$SECRET uvicorn server:app --port {port}"
    project.run(
        "import elsewhere; elsewhere.manager.emit('job_complete', {'result': 1}, room='job_42')"
    )
    with running(project.shell(line, "attached.log")) as server:
        server.expect(lambda: "startup complete" in server.log, "server")
        url, project.url = project.url, f"http://127.0.0.1:{port}"
        try:
            watched = wait_for(
                lambda: (
                    (done := watch(project, "42", mint(project, "--all-jobs"))).returncode == 0
                    and done
                ),
                "watched job",
            )
        finally:
            project.url = url
        assert "almost there" in watched.stdout
