"""The code of the how-to guides, run unchanged in one project with real servers."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Valkey
from tests.e2e.documented import Page, Project, run_package_script, run_stock_script
from tests.support import ROOT, SECRET, answers, free_port, new_id, running, wait_for

PROGRESS = Page("docs/how-to/report-progress.md")
OPEN_JOB = Page("docs/how-to/open-job.md")
OWN_SERVER = Page("docs/how-to/own-server.md")
FOLLOW = Page("docs/how-to/follow-jobs.md")
LIST = Page("docs/how-to/list-jobs.md")
FASTAPI = Page("docs/how-to/fastapi.md")
# tests/e2e/browser/test_flask_behind_nginx.py runs the module of this page.
FLASK = Page("docs/how-to/flask.md")
# tests/e2e/browser/test_event_source.py runs the module of this page.
HTTP = Page("docs/how-to/follow-over-http.md")
TESTING = Page("docs/how-to/testing.md")
AUTHORIZATION = Page("docs/how-to/authorization.md")
DESCRIBE = Page("docs/how-to/describe-jobs.md")
CANCEL = Page("docs/how-to/cancel-jobs.md")

PAGES = (
    PROGRESS, DESCRIBE, OPEN_JOB, OWN_SERVER, FOLLOW, LIST, FASTAPI, TESTING, AUTHORIZATION, CANCEL,
)  # fmt: skip
MODULES = {name: code for page in PAGES for name, code in page.modules.items()}
STOCK_SCRIPT, PACKAGE_SCRIPT, FEED_SCRIPT = FOLLOW.code_blocks("js")
_, WATCH = FOLLOW.commands

WORKER = "celery -A tasks worker --loglevel=info -I more,discreet,reports"
SERVE = 'JOBCAST_JWT_SECRET="$SECRET" jobcast serve'


def test_pages_of_one_project_define_different_modules() -> None:
    names = [name for page in PAGES for name in page.modules]
    assert len(names) == len(set(names))


def test_every_module_of_a_guide_is_run_by_a_test() -> None:
    documented = {
        name
        for path in (ROOT / "docs" / "how-to").glob("*.md")
        for name in Page(str(path.relative_to(ROOT))).modules
    }
    assert documented == MODULES.keys() | FLASK.modules.keys() | HTTP.modules.keys()
    assert set(MODULES) == {
        "tasks.py", "more.py", "discreet.py", "nightly.py", "elsewhere.py", "shop.py", "server.py",
        "follow.py", "wait.py", "list_jobs.py", "wait_idle.py", "api.py", "test_tasks.py",
        "test_worker.py", "rules.py", "reports.py", "cancel.py",
        "access.py",  # tests/e2e/test_django_rule.py runs this module
    }  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("guides"), valkey, MODULES)
    with project.worker(WORKER), project.server(SERVE):
        yield project


def send(project: Project, owner: str = "alice") -> str:
    return project.run(f"import tasks; print(tasks.convert.owned_by({owner!r}).delay(100).id)")


def test_followers_see_stages_and_logs_of_a_report(project: Project) -> None:
    job_id = project.run(
        "import more; print(more.report.owned_by('alice').delay(['x', 'y']).id); more.parse('x')"
    )
    watched = project.watch(WATCH, job_id, project.mint())
    assert watched.returncode == 0, watched.stdout
    for line in ("read x", "read y", "one page was empty", "followers also see records of logging"):
        assert line in watched.stdout


def test_followers_see_only_the_public_result_and_error(project: Project) -> None:
    code = "import discreet; print(discreet.import_rows.owned_by('alice').delay({}).id)"
    good = project.watch(WATCH, project.run(code.format(["a", "secret"])), project.mint())
    assert good.returncode == 0
    assert "SECRET" not in good.stdout
    bad = project.watch(WATCH, project.run(code.format([1])), project.mint())
    assert bad.returncode == 1
    assert "The import failed. Support has been notified." in bad.stdout
    assert "AttributeError" in bad.stdout


def test_watch_shows_the_title_of_a_report(project: Project) -> None:
    code = "import reports; print(reports.build.owned_by('alice').delay('Alice', 'March').id)"
    watched = project.watch(WATCH, project.run(code), project.mint())
    assert watched.returncode == 0, watched.stdout
    assert "Report for Alice, March" in watched.stdout


def test_opened_job_is_followed(project: Project) -> None:
    project.run("import nightly")
    watched = project.watch(WATCH, "nightly-reindex", project.mint())
    assert watched.returncode == 0
    for shard in "abc":
        assert f"shard {shard}" in watched.stdout


END = "import elsewhere; elsewhere.manager.emit('job_complete', {'result': 1}, room='job_42')"


def test_single_events_reach_followers(project: Project) -> None:
    project.run(END)
    watched = project.watch(WATCH, "42", project.mint("--job", "42"))
    assert watched.returncode == 0
    assert "almost there" in watched.stdout


def test_attached_server_serves_jobs(project: Project) -> None:
    project.run(END)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    line = f"JOBCAST_JWT_SECRET=$SECRET uvicorn server:app --port {port}"
    with running(project.shell(line, "attached.log")) as server:
        server.expect(lambda: "startup complete" in server.log, "server")
        token = project.mint("--all-jobs")
        watched = wait_for(
            lambda: (
                (done := project.watch(WATCH, "42", token, url)).returncode == 0 and done
            ),
            "watched job",
        )  # fmt: skip
    assert "almost there" in watched.stdout


def test_application_with_routes_serves_them_and_health_checks(project: Project) -> None:
    with serving(project, OWN_SERVER.commands[0]) as url:
        assert fetch(url, "GET", "/") == "hello"
        assert answers(f"{url}/healthz")


@pytest.mark.usefixtures("package")
def test_page_with_socket_io_client_follows_a_job(project: Project) -> None:
    lines = run_stock_script(STOCK_SCRIPT, project.url, project.mint(), send(project))
    assert "info page 42 is done" in lines
    assert lines[-1] == "done { pages: 100 }"


def test_page_with_the_package_follows_a_job(project: Project, tmp_path: Path) -> None:
    lines = run_package_script(PACKAGE_SCRIPT, project.url, project.mint(), send(project), tmp_path)
    assert "done { pages: 100 }" in lines
    assert any(re.match(r"(started|complete) \d+ converting page \d+ is done", li) for li in lines)


WAIT_FOR_FEED = """
await new Promise((resolve) => {
  feed.subscribe(() => feed.getSnapshot().status === "live" && resolve());
});
"""


def test_page_with_the_package_lists_jobs(project: Project, tmp_path: Path) -> None:
    script = f"{PACKAGE_SCRIPT}{FEED_SCRIPT}{WAIT_FOR_FEED}"
    job_id = send(project)
    lines = run_package_script(script, project.url, project.mint(), job_id, tmp_path)
    assert f"{job_id} null complete 100" in lines


def test_python_client_follows_a_job(project: Project) -> None:
    code = "import asyncio, follow; asyncio.run(follow.follow({!r}, {!r}))"
    printed = project.run(code.format(project.url, send(project)), JOBCAST_TOKEN=project.mint())
    assert "job_complete" in printed
    assert printed.endswith("result: {'pages': 100}")


def test_python_client_without_an_event_loop_waits_for_a_job(project: Project) -> None:
    code = "import wait; wait.wait({!r}, {!r})"
    printed = project.run(code.format(project.url, send(project)), JOBCAST_TOKEN=project.mint())
    assert printed.startswith("status: ")
    assert "JobComplete" in printed
    assert printed.endswith("result: {'pages': 100}")


def test_python_clients_list_jobs(project: Project) -> None:
    owner = new_id("owner")
    token = project.mint("--sub", owner)
    job_id = send(project, owner)
    code = f"import asyncio, list_jobs; asyncio.run(list_jobs.show({project.url!r}))"

    def listed() -> list[str]:
        return project.run(code, JOBCAST_TOKEN=token).splitlines()

    wait_for(lambda: any(line.startswith(f"{job_id} ") for line in listed()), "listed job")
    code_without_loop = f"import wait_idle; wait_idle.wait_idle({project.url!r})"
    printed = project.run(code_without_loop, JOBCAST_TOKEN=token)
    assert printed.startswith("0 failed jobs")
    wait_for(lambda: f"{job_id} complete tasks.convert" in listed(), "end of the job")


def test_commands_list_jobs(project: Project) -> None:
    owner = new_id("owner")
    env = {"JOBCAST_TOKEN": project.mint("--sub", owner)}
    job_id = send(project, owner)
    table, *_ = (line for line in LIST.commands if line.startswith("jobcast ls"))
    code = "import subprocess; print(subprocess.check_output({!r}, shell=True, text=True))"

    def shown(command: str) -> str:
        return project.run(code.format(f"{command} --url {project.url}"), **env)

    wait_for(lambda: job_id in shown(table), "job in the table")
    assert job_id in shown(f"{table} --json --status running,complete --since 2h")


def test_rule_of_the_guide_admits_only_the_owner(project: Project) -> None:
    (line,) = AUTHORIZATION.commands
    job_id = send(project, owner="bob")
    with serving(project, line) as url:
        assert project.watch(WATCH, job_id, project.mint("--sub", "bob"), url).returncode == 0
        assert project.watch(WATCH, job_id, project.mint(), url).returncode == 2


def test_application_cancels_a_job(project: Project) -> None:
    order = new_id("order")
    sent = f"(100,), task_id='invoice-{order}', countdown=600"
    project.run(f"import tasks; tasks.convert.owned_by('alice').apply_async({sent})")
    withdrawn = project.run(
        f"import cancel; print(cancel.withdraw({order!r}))", JOBCAST_JWT_SECRET=SECRET
    )
    assert withdrawn == "{'outcome': 'cancelled'}"
    watched = project.watch(WATCH, f"invoice-{order}", project.mint())
    assert "the order was withdrawn" in watched.stdout


RUN_PYTEST = """
import pytest, sys
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "{name}"]))
"""


def test_examples_of_the_testing_guide_pass(project: Project) -> None:
    # The worker of test_worker.py is the project's.
    for name, count in (("test_tasks.py", 3), ("test_worker.py", 1)):
        assert f"{count} passed" in project.run(RUN_PYTEST.format(name=name))


def test_directly_called_task_has_no_job(project: Project) -> None:
    assert project.run("from tasks import convert; print(convert(3))") == "{'pages': 3}"


def test_fastapi_serves_tokens_jobs_and_the_socket(project: Project) -> None:
    (line,) = FASTAPI.commands
    with serving(project, line) as url:
        token = json.loads(fetch(url, "POST", "/api/token"))["token"]
        job_id = json.loads(fetch(url, "POST", "/api/start?pages=3"))["job_id"]
        watched = project.watch(WATCH, job_id, token, url)
    assert watched.returncode == 0, watched.stdout
    assert "page 2 is done" in watched.stdout


class serving:  # noqa: N801
    """Run a command of a page as a second server of a project. Return the server's URL."""

    def __init__(self, project: Project, line: str) -> None:
        self.port = free_port()
        env = f"export JOBCAST_JWT_SECRET=$SECRET JOBCAST_PORT={self.port}"
        self._running = running(project.shell(f"{env}; {line}", f"server-{self.port}.log"))

    def __enter__(self) -> str:
        url = f"http://127.0.0.1:{self.port}"
        server = self._running.__enter__()
        server.expect(lambda: answers(f"{url}/readyz"), "ready server")
        return url

    def __exit__(self, *exc: object) -> None:
        self._running.__exit__(None, None, None)


def fetch(url: str, method: str, path: str) -> str:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    assert response.status == 200, body
    return body
