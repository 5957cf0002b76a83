"""The tutorials for Django, FastAPI and Flask, followed step by step in a fresh environment."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, expect
from playwright.sync_api import Page as Tab

from tests.e2e.browser.fresh_environment import build_wheel, make_environment
from tests.e2e.documented import Page as Tutorial
from tests.support import TIMEOUT, Process, answers, free_port, running

ACTIVATE = ". .venv/bin/activate"
PORTS = ("6379", "8000", "8001")
expect.set_options(timeout=1000 * TIMEOUT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


class Reader:
    """A reader of a tutorial, with a folder, a fresh environment and unused ports."""

    def __init__(self, name: str, folder: Path, wheel: Path) -> None:
        self.tutorial = Tutorial(f"docs/tutorial/{name}.md")
        install, self.valkey, *self.commands = self.tutorial.code_blocks("sh")
        (self.html,) = self.tutorial.code_blocks("html")
        self._ports = {port: str(free_port()) for port in PORTS}
        # The default of JOBCAST_URL has the port that the tutorial uses. Django's settings name it.
        url = f"redis://localhost:{self._ports['6379']}/0"
        self._env = {} if name == "django" else {"JOBCAST_URL": url}
        self.url = f"http://127.0.0.1:{self._ports['8000']}"
        self.server_url = f"http://127.0.0.1:{self._ports['8001']}"
        self.folder = self._install(install, folder, wheel)

    def _install(self, commands: str, folder: Path, wheel: Path) -> Path:
        make_folder, venv, activate, install, *rest = commands.splitlines()
        subprocess.run(["bash", "-c", make_folder], cwd=folder, check=True)
        (inside,) = folder.iterdir()
        assert (venv, activate) == ("python3 -m venv .venv", ACTIVATE)
        pip, verb, *requirements = shlex.split(install)
        assert (pip, verb) == ("pip", "install")
        make_environment(inside / ".venv", wheel, requirements)
        for line in rest:
            subprocess.run(["bash", "-c", f"{ACTIVATE}\n{line}"], cwd=inside, check=True)
        return inside

    def write(self, name: str, code: str) -> None:
        """Write a file of the tutorial, or add to the one that a command has made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if name == "mysite/settings.py" else ""
        path.write_text(before + self._with_ports(code))

    def write_modules(self) -> None:
        for name, code in self.tutorial.modules.items():
            self.write(name, code)

    def run(self, commands: str) -> str:
        """Type commands that end, and return what they print."""
        process = self.enter(commands)
        assert process.popen.wait(TIMEOUT) == 0, process.log
        return process.log

    def enter(self, commands: str) -> Process:
        """Type commands into a new terminal."""
        log = self.folder / f"terminal-{len(list(self.folder.glob('*.log')))}.log"
        lines = f"set -e\n{ACTIVATE}\n{self._with_ports(commands)}"
        return Process(["bash", "-c", lines], log, self._env, self.folder)

    @contextmanager
    def programs(self, worker: str, server: str, site: str, path: str) -> Iterator[Process]:
        """Start Valkey, the worker, the server and the site, and wait until they are ready.

        Return the server.
        """
        with ExitStack() as stack:
            valkey = stack.enter_context(running(self.enter(self.valkey)))
            valkey.expect(lambda: "server started successfully!" in valkey.log, "Valkey")
            working = stack.enter_context(running(self.enter(worker)))
            serving = stack.enter_context(running(self.enter(server)))
            site_process = stack.enter_context(running(self.enter(site)))
            working.expect(lambda: " ready." in working.log, "ready worker")
            serving.expect(lambda: answers(f"{self.server_url}/readyz"), "ready server")
            site_process.expect(lambda: answers(f"{self.url}{path}"), "ready site")
            # A server may answer a request before it logs its address.
            serving.expect(lambda: "Uvicorn running on" in serving.log, "address of the server")
            site_process.expect(
                lambda: any(text in site_process.log for text in ("unning on", "server at")),
                "address of the site",
            )
            yield serving

    def _with_ports(self, text: str) -> str:
        return re.sub("|".join(PORTS), lambda found: self._ports[found[0]], text)


MakeReader = Callable[[str], Reader]


@pytest.fixture
def read(tmp_path: Path, wheel: Path) -> MakeReader:
    return lambda name: Reader(name, tmp_path, wheel)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(1000 * TIMEOUT)
    yield context
    context.close()


def element_of(tab: Tab) -> Locator:
    return tab.locator("jobcast-job")


def expect_running(tab: Tab) -> None:
    """Expect a bar that has moved, and a log line."""
    expect(element_of(tab)).to_have_attribute("status", "started")
    bar = tab.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]"))
    expect(tab.get_by_role("log")).to_contain_text("page 0 is done")


def expect_end(tab: Tab) -> None:
    expect(element_of(tab)).to_have_attribute("status", "complete")
    expect(tab.get_by_role("log")).to_contain_text("page 99 is done")
    job_id = element_of(tab).get_attribute("job-id")
    state = tab.evaluate(
        "id => fetch(`/jobcast/jobs/${id}`).then((answer) => answer.json())", job_id
    )
    assert (state["status"], state["result"]) == ("complete", {"pages": 100})


RESULT_OF_STREAM = """id => new Promise((resolve) => {
  const source = new EventSource(`/jobcast/jobs/${id}/events`, { withCredentials: true });
  source.addEventListener("job_complete", ({ data }) => {
    source.close();
    resolve(JSON.parse(data).result);
  });
})"""


def test_django_shows_a_job_until_its_end_or_the_sign_out(
    read: MakeReader, context: BrowserContext
) -> None:
    reader = read("django")
    reader.write_modules()
    (reader.folder / "reports" / "__init__.py").touch()
    reader.write("reports/templates/reports/index.html", reader.html)
    check, prepare, worker, server, site = reader.commands
    assert "System check identified no issues" in reader.run(check)
    assert "Superuser created successfully." in reader.run(prepare)
    with reader.programs(worker, server, site, "/login") as serving:
        tab = context.new_page()
        tab.goto(reader.url)
        tab.get_by_label("Username").fill("alice")
        tab.get_by_label("Password").fill("secret")
        tab.get_by_role("button", name="Log in").click()
        tab.get_by_role("button", name="Build").click()
        expect_running(tab)
        tab.reload()
        expect_end(tab)
        # The server recognises the cookie of Django's session.
        job_id = element_of(tab).get_attribute("job-id")
        assert tab.evaluate(RESULT_OF_STREAM, job_id) == {"pages": 100}
        other = another_tab(tab)
        tab.get_by_role("button", name="Build").click()
        expect_running(tab)
        sign_out(other, tab, serving)


def another_tab(tab: Tab) -> Tab:
    """Open the same page, before a job starts that may end meanwhile."""
    other = tab.context.new_page()
    other.goto(tab.url)
    return other


def sign_out(other: Tab, tab: Tab, server: Process) -> None:
    """Sign out, and expect that the server closes the tab's connection and the tab shows it."""
    other.get_by_role("button", name="Sign out").click()
    expect(element_of(tab)).to_have_attribute("status", "refused")
    expect(tab.get_by_role("alert")).to_have_text("Sign in to see this job.")
    server.expect(lambda: "was revoked" in server.log, "closed connection")


STATUSES_OF_ANOTHER_USER = """async ([id, server]) => {
  await fetch("/login/bob", { method: "POST" });
  const { token } = await (await fetch("/jobcast/token", { method: "POST" })).json();
  const headers = { Authorization: `Bearer ${token}` };
  const answers = [
    fetch(`/jobcast/jobs/${id}`),
    fetch(`${server}/jobs/${id}`, { headers }),
    fetch(`${server}/jobs/${id}/events`, { headers }),
  ];
  return (await Promise.all(answers)).map(({ status }) => status);
}"""


def expect_refused_to_another_user(
    context: BrowserContext, reader: Reader, job_id: str | None
) -> None:
    assert context.browser is not None
    with closing(context.browser.new_context()) as other:
        tab = other.new_page()
        tab.goto(reader.url)
        argument = [job_id, reader.server_url]
        assert tab.evaluate(STATUSES_OF_ANOTHER_USER, argument) == [404, 404, 404]


def test_fastapi_shows_a_job_until_its_end_or_the_sign_out(
    read: MakeReader, context: BrowserContext
) -> None:
    reader = read("fastapi")
    reader.write_modules()
    reader.write("index.html", reader.html)
    secret, worker, server, site = reader.commands
    reader.run(secret)
    with reader.programs(worker, server, site, "/") as serving:
        tab = context.new_page()
        tab.goto(reader.url)
        with tab.expect_response("**/login/alice"):
            tab.get_by_role("button", name="Sign in").click()
        tab.get_by_role("button", name="Convert").click()
        expect_running(tab)
        expect_end(tab)
        expect_refused_to_another_user(context, reader, element_of(tab).get_attribute("job-id"))
        other = another_tab(tab)
        tab.get_by_role("button", name="Convert").click()
        expect_running(tab)
        sign_out(other, tab, serving)


def test_flask_shows_a_job_until_its_end_or_the_sign_out(
    read: MakeReader, context: BrowserContext
) -> None:
    reader = read("flask")
    reader.write_modules()
    reader.write("templates/index.html", reader.html)
    secret, worker, server, site = reader.commands
    reader.run(secret)
    with reader.programs(worker, server, site, "/") as serving:
        tab = context.new_page()
        tab.goto(reader.url)
        tab.get_by_label("Name").fill("alice")
        tab.get_by_role("button", name="Sign in").click()
        tab.get_by_role("button", name="Convert").click()
        expect_running(tab)
        tab.reload()
        expect_end(tab)
        other = another_tab(tab)
        tab.get_by_role("button", name="Convert").click()
        expect_running(tab)
        sign_out(other, tab, serving)
