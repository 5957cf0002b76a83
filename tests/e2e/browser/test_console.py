"""The console in a browser, with real jobs, and with failures of jobs and of the server."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

from jobcast import open_job
from jobcast.publishing.runtime import get_runtime
from tests import jobs
from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.support import TIMEOUT, Worker, call_in_thread, new_id, running, wait_for
from tests.support.console import Console, Visitor

NewTab = Callable[..., Tab]
Send = Callable[..., str]

# Messages of Chromium about an unreachable server.
UNREACHABLE = (
    r"WebSocket connection to|ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET"
    r"|ERR_INTERNET_DISCONNECTED"
)


@pytest.fixture
def user() -> str:
    """A user without jobs."""
    return new_id("user")


def metric(console: Console, name: str) -> float:
    with urlopen(f"{console.url}/metrics", timeout=TIMEOUT) as response:
        found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found, name
    return float(found[1])


def test_a_started_job_is_shown_until_it_ends(
    sample_worker: Worker, new_tab: NewTab, user: str
) -> None:
    tab = new_tab(user)
    job_id = tab.start("Start Hash a folder")
    expect(tab.row(job_id)).to_contain_text("Hash a folder")
    expect(tab.row(job_id)).to_have_attribute("data-status", "complete")
    tab.row(job_id).get_by_role("link").click()
    tab.expect_status(job_id, "complete")
    expect(tab.status_panel).to_contain_text("Done in")
    expect(tab.bar).to_have_attribute("aria-valuenow", "100")
    result = tab.page.get_by_role("region", name="Result")
    expect(result).to_contain_text("digest")
    expect(tab.page.get_by_role("region", name="Timeline")).to_contain_text("Queued")
    assert tab.page.title().startswith("Done: Hash a folder")


def test_a_users_file_is_imported_and_a_wrong_one_shows_an_error_at_its_task(
    sample_worker: Worker, new_tab: NewTab, user: str
) -> None:
    tab = new_tab(user)
    tab.allow_message("status of 400")
    chooser = tab.page.get_by_label("File for Import people")
    wrong = {"name": "wrong.csv", "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"}
    chooser.set_input_files(wrong)  # type: ignore[arg-type]
    card = tab.page.locator('[data-task="import_csv"]')
    expect(card.get_by_role("alert")).to_contain_text("name,email,born")

    people = "name,email,born\nAda,ada@example.com,1815-12-10\nAlan,alan at example,1912-06-23\n"
    right = {"name": "people.csv", "mimeType": "text/csv", "buffer": people.encode()}
    job_id = tab.start_with(lambda: chooser.set_input_files(right))  # type: ignore[arg-type]
    card.get_by_role("link").click()
    tab.expect_status(job_id, "complete")
    expect(tab.page.get_by_role("region", name="Result")).to_contain_text("imported: 1")
    expect(tab.log).to_contain_text("line 3: email is not an address")
    expect(card).to_have_count(0)


def test_a_reload_during_a_run_restores_the_state(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, gate: Path
) -> None:
    job_id = send(sample_worker, jobs.count, 10, str(gate), owner=user)
    tab = new_tab(user)
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    expect(tab.log).to_contain_text("step 5")
    tab.page.reload()
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    expect(tab.status_panel).to_contain_text("Running: counting, 50")
    expect(tab.log).to_contain_text("step 5")
    gate.touch()
    tab.expect_status(job_id, "complete")


def test_title_tags_and_parent_of_a_job_are_shown_and_follow_its_run(
    sample_worker: Worker, new_tab: NewTab, sender: None, user: str, gate: Path
) -> None:
    job_id, child = new_id(), new_id()
    report = jobs.report.as_job(owner=user, title="<b>March</b>", tags=["project:7"])
    call_in_thread(
        report.apply_async, ("Ada", str(gate), child), task_id=job_id, queue=sample_worker.name
    )
    tab = new_tab(user)
    tab.go(job_id)
    heading = tab.page.get_by_role("heading", level=1)
    expect(heading).to_have_text("Ada: 3 pages")
    expect(tab.page).to_have_title(re.compile("Ada: 3 pages"))
    tags = tab.page.get_by_role("list", name="Tags").get_by_role("listitem")
    expect(tags).to_have_text(["project:7", "reports", "urgent"])
    expect(tab.row(job_id).get_by_role("link")).to_contain_text("Ada: 3 pages")
    tab.go(child)
    expect(heading).to_have_text("Count")
    related = tab.page.get_by_role("region", name="Related jobs")
    related.get_by_role("link", name="Ada: 3 pages").click()
    expect(heading).to_have_text("Ada: 3 pages")
    gate.touch()
    tab.expect_status(job_id, "complete")


def test_tabs_of_a_user_show_the_same_list(
    sample_worker: Worker, new_tab: NewTab, user: str
) -> None:
    first = new_tab(user)
    second = new_tab(user, beside=first)
    job_id = first.start("Start Make thumbnails")
    for tab in (first, second):
        expect(tab.row(job_id)).to_have_attribute("data-status", "complete")
        expect(tab.row(job_id)).to_contain_text("Make thumbnails")


def test_a_restart_of_the_server_loses_and_repeats_no_log_lines(
    sample_worker: Worker, console: Console, new_tab: NewTab, send: Send, user: str,
    gate: Path, tmp_path: Path,
) -> None:  # fmt: skip
    job_id = send(sample_worker, jobs.tick, str(gate), owner=user)
    tab = new_tab(user)
    tab.allow_message(UNREACHABLE)
    tab.go(job_id)
    expect(tab.log).to_contain_text("tick 1")
    console.popen.send_signal(signal.SIGKILL)
    console.popen.wait()
    expect(tab.page.get_by_role("region", name="Connection")).to_contain_text("connection was lost")
    tab.expect_connection("reconnecting")
    tab.page.context.set_offline(True)
    expect(tab.page.get_by_role("region", name="Connection")).to_contain_text("You are offline")
    tab.page.context.set_offline(False)
    tab.expect_connection("reconnecting")
    console.start()
    console.ready()
    tab.expect_connection()
    expect(tab.page.get_by_role("region", name="Connection")).to_have_count(0)
    gate.touch()
    tab.expect_status(job_id, "complete")
    lines = [line.split()[-1] for line in tab.downloaded_log(tmp_path) if " tick " in line]
    assert len(lines) > 10
    assert lines == [str(number) for number in range(len(lines))]
    result = tab.page.get_by_role("region", name="Result")
    expect(result).to_contain_text(str(len(lines)))


@pytest.fixture
def short_tokens(tmp_path: Path, valkey: Valkey, console: Console) -> Iterator[Console]:
    """The same site, with tokens that expire after a few seconds."""
    env = {"JOBCAST_DEMO_TOKEN_SECONDS": "12"}
    with running(
        Console(tmp_path / "short_tokens.log", valkey.url, console.demo, env)
    ) as short_tokens:
        yield short_tokens.ready()


def test_a_token_is_renewed_on_the_same_connection(
    short_tokens: Console, sample_worker: Worker, new_tab: NewTab, send: Send, user: str, gate: Path
) -> None:
    tab = new_tab(user, url=short_tokens.url)
    tokens: list[str] = []
    tab.page.on(
        "request", lambda request: tokens.append(request.url) if "token" in request.url else None
    )
    job_id = send(sample_worker, jobs.count, 10, str(gate), owner=user)
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    # The server asks for a renewal after half of a token's life: the fifth comes after the first
    # has expired.
    while len(tokens) < 5:
        tab.page.wait_for_event("request", lambda request: "token" in request.url)
    gate.touch()
    tab.expect_status(job_id, "complete")
    tab.expect_connection()
    assert len([socket for socket in tab.sockets if "socket.io" in socket.url]) == 1


def test_an_ended_session_leads_to_the_sign_in_and_back_to_the_same_job(
    short_tokens: Console, sample_worker: Worker, new_tab: NewTab, send: Send, user: str, gate: Path
) -> None:
    tab = new_tab(user, url=short_tokens.url)
    tab.allow_message("status of 401")
    job_id = send(sample_worker, jobs.count, 10, str(gate), owner=user)
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    tab.page.context.clear_cookies()
    expect(tab.page.get_by_role("heading", name="Sign in again")).to_be_visible()
    tab.sign_in(user)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    gate.touch()
    tab.expect_status(job_id, "complete")


def test_another_users_job_looks_like_a_missing_one(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str
) -> None:
    foreign = send(sample_worker, jobs.count, 1, owner="bob")
    tab = new_tab(user)
    texts = []
    for job_id in (foreign, new_id("missing")):
        tab.page.get_by_label("Search the jobs").fill(job_id)
        tab.page.get_by_role("link", name=f"Open the job {job_id}").click()
        tab.expect_status(job_id, "refused")
        texts.append(tab.status_panel.inner_text())
        expect(tab.log).to_have_count(0)
    assert texts[0] == texts[1]
    assert "Job not found" in texts[0]


def test_a_failed_job_shows_its_error_in_its_row_and_on_its_page(
    sample_worker: Worker, new_tab: NewTab, user: str
) -> None:
    tab = new_tab(user)
    job_id = tab.start("Start with the sample: Audit a ledger")
    expect(tab.row(job_id)).to_have_attribute("data-status", "error")
    expect(tab.row(job_id)).to_contain_text(re.compile(r"line \d+: the balance is"))
    tab.row(job_id).get_by_role("link").click()
    expect(tab.status_panel).to_contain_text("Failed after")
    expect(tab.status_panel).to_contain_text("LedgerError")
    expect(tab.status_panel).to_contain_text("The task raised an error")
    last = tab.status_panel.get_by_role("button").last
    line = last.locator(".text").inner_text()
    last.click()
    expect(tab.log.locator("[data-current]")).to_contain_text(line)


def test_a_retrying_job_shows_when_it_starts_and_its_error(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, gate: Path
) -> None:
    job_id = send(sample_worker, jobs.unsteady, str(gate), owner=user)
    tab = new_tab(user)
    tab.go(job_id)
    tab.expect_status(job_id, "retrying")
    expect(tab.status_panel).to_contain_text(re.compile(r"attempt 2 starts in \d+ s"))
    expect(tab.status_panel).to_contain_text("ConnectionError: the gate is closed")
    jobs.app.control.revoke(job_id, destination=[f"{sample_worker.name}@test"])


def test_a_retried_job_shows_each_attempt(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str
) -> None:
    job_id = send(sample_worker, jobs.flaky, owner=user)
    tab = new_tab(user)
    tab.go(job_id)
    tab.expect_status(job_id, "complete")
    steps = tab.page.get_by_role("region", name="Timeline").get_by_role("listitem")
    assert [step.get_attribute("data-status") for step in steps.all()] == [
        "queued", "started", "retrying", "started", "retrying", "started", "complete",
    ]  # fmt: skip
    expect(steps.nth(2)).to_contain_text("ConnectionError: try 1")


def test_a_revoked_job_shows_that_it_was_revoked(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, gate: Path
) -> None:
    job_id = send(sample_worker, jobs.count, 10, str(gate), owner=user)
    tab = new_tab(user)
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    jobs.app.control.revoke(job_id, terminate=True, destination=[f"{sample_worker.name}@test"])
    tab.expect_status(job_id, "cancelled")
    expect(tab.status_panel).to_contain_text("Revoked after")
    assert tab.page.title().startswith("Revoked")


def test_twenty_jobs_run_at_once(
    sample_worker: Worker, console: Console, new_tab: NewTab, send: Send, user: str
) -> None:
    visitor = Visitor(console, user)
    started = [visitor.post("/api/jobs/fetch_feed").json["job_id"] for _ in range(10)]
    tab = new_tab(user)
    started += [tab.start("Start Fetch a feed") for _ in range(10)]
    rows = tab.page.get_by_role("list", name="Jobs").locator("li.row")
    expect(rows.first).to_have_attribute("aria-setsize", "20")
    shown = tab.page.get_by_role("group", name="Show jobs")
    expect(shown.get_by_role("button", name="Done")).to_contain_text("20")
    for job_id in started:
        tab.page.get_by_label("Search the jobs").fill(job_id)
        expect(tab.row(job_id)).to_have_attribute("data-status", "complete")
    tab.page.get_by_label("Search the jobs").fill("")
    shown.get_by_role("button", name="Failed").click()
    expect(rows).to_have_count(0)


RECORD_FRAMES = """() => {
  window.longest = 0;
  window.began = performance.now();
  let before = performance.now();
  const frame = (now) => {
    window.longest = Math.max(window.longest, now - before);
    window.frames_drawn = (window.frames_drawn ?? 0) + 1;
    before = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""


def test_ten_thousand_log_lines_can_be_followed_saved_and_searched(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, gate: Path, tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    lines = 10_000
    job_id = send(sample_worker, jobs.chatter, lines, str(gate), owner=user)
    tab = new_tab(user)
    tab.go(job_id)
    expect(tab.log).to_contain_text("line 0 of")
    tab.page.evaluate(RECORD_FRAMES)
    gate.touch()
    tab.expect_status(job_id, "complete")
    expect(tab.log).to_contain_text(f"line {lines - 1} of")  # the log follows its end
    frames, longest, whole = tab.page.evaluate(
        "[window.frames_drawn, window.longest, performance.now() - window.began]"
    )
    record_property("frames", frames)
    record_property("longest frame, ms", longest)
    print(f"{lines} lines in {whole:.0f} ms: {frames} frames, the longest took {longest:.0f} ms")
    # The page drew frames while lines arrived, rather than only at the end.
    assert frames > 10
    assert longest < whole / 2
    assert tab.log.locator("[data-seq]").count() < 200

    downloaded = [line for line in tab.downloaded_log(tmp_path) if " line " in line]
    assert [int(re.findall(r"line (\d+) of", line)[0]) for line in downloaded] == list(range(lines))

    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.get_by_role("button", name="Copy all lines").click()
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied.count("of a job with many lines") == lines

    tab.page.keyboard.press("/")
    tab.page.keyboard.type("line 5000 of")
    tab.page.keyboard.press("Enter")
    expect(tab.log.locator("[data-current]")).to_contain_text("line 5000 of")
    expect(tab.page.get_by_role("button", name="Jump to the end")).to_be_visible()
    tab.page.get_by_role("group", name="Levels shown").get_by_role("button", name="Info").click()
    expect(tab.page.get_by_role("heading", name="Log")).to_contain_text("1,000 of 10,000 lines")


def test_a_scrolled_log_keeps_its_position(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, gate: Path
) -> None:
    job_id = send(sample_worker, jobs.tick, str(gate), owner=user)
    tab = new_tab(user)
    tab.go(job_id)
    expect(tab.log).to_contain_text(re.compile("tick 1[0-9][0-9]"))
    tab.log.hover()
    tab.page.mouse.wheel(0, -100_000)
    first = tab.log.get_by_text("tick 0", exact=True)
    expect(first).to_be_visible()
    more = tab.page.get_by_role("button", name=re.compile("new lines, jump to the end"))
    expect(more).to_be_visible()
    expect(first).to_be_visible()
    more.click()
    expect(more).to_have_count(0)
    gate.touch()
    tab.expect_status(job_id, "complete")


def test_dropped_old_lines_do_not_move_the_visible_ones(
    sender: None, new_tab: NewTab, user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBCAST_HISTORY_SIZE", "20000")
    job_id = new_id()
    tab = new_tab(user)
    current = tab.log.locator("[data-current]")
    more = tab.page.get_by_role("button", name=re.compile("new lines?, jump to the end"))
    note = tab.page.locator(".log-note")

    with open_job(job_id, owner=user) as job:
        runtime = get_runtime()
        assert runtime

        def write(first: int, last: int) -> None:
            for line in range(first, last):
                job.log(f"line {line} of many")
                if line % 5000 == 0:
                    runtime.publisher.flush()  # a full buffer would drop the oldest lines

        write(0, 19_000)
        tab.go(job_id)
        expect(tab.log).to_contain_text("line 18999 of")
        write(19_000, 20_500)
        expect(tab.log).to_contain_text("line 20499 of")  # the log follows its end
        expect(note).to_have_text("500 earlier lines are no longer shown.")
        tab.page.get_by_label("Search the log").fill("line 10000 of")
        tab.page.keyboard.press("Enter")
        expect(current).to_contain_text("line 10000 of")
        place = current.bounding_box()
        write(20_500, 22_000)
        expect(note).to_have_text("2,000 earlier lines are no longer shown.")
        expect(more).to_contain_text("1,500 new lines")
        assert current.bounding_box() == place
        expect(tab.page.get_by_text("1 of 1", exact=True)).to_be_visible()
    tab.expect_status(job_id, "complete")
    missing, *lines = tab.downloaded_log(tmp_path)
    assert missing == "-- 2,000 earlier lines are no longer shown. --"
    assert [int(line.split()[3]) for line in lines] == list(range(2_000, 22_000))


@pytest.fixture
def no_leaked_joins(console: Console) -> Iterator[None]:
    """Check that no connection and no join is left before and after the test."""
    for name in ("jobcast_connections", "jobcast_jobs_followed"):
        wait_for(lambda name=name: metric(console, name) == 0, f"{name} 0")  # type: ignore[misc]
    yield
    for name in ("jobcast_connections", "jobcast_jobs_followed"):
        wait_for(lambda name=name: metric(console, name) == 0, f"{name} 0")  # type: ignore[misc]


def test_closed_jobs_and_signed_out_users_leave_no_joins_and_connections(
    no_leaked_joins: None,
    console: Console,
    sample_worker: Worker,
    new_tab: NewTab,
    send: Send,
    user: str,
    gate: Path,
) -> None:
    job_ids = [send(sample_worker, jobs.count, 10, str(gate), owner=user) for _ in range(3)]
    tab = new_tab(user)
    for job_id in job_ids:
        tab.row(job_id).get_by_role("link").click()
        tab.expect_status(job_id, "started")
        wait_for(lambda: metric(console, "jobcast_jobs_followed") == 1, "one join")
    assert metric(console, "jobcast_connections") == 1
    tab.page.get_by_role("link", name="Close the job").click()
    wait_for(lambda: metric(console, "jobcast_jobs_followed") == 0, "no join")
    gate.touch()
    tab.page.get_by_role("button", name="Sign out").click()
    expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
    wait_for(lambda: metric(console, "jobcast_connections") == 0, "no connection")
